"""Every reason is explained, and docs/dead_letters.md says the same. `python tests/unit/test_reasons.py` writes its table anew."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from k2stream.cli import app
from k2stream.deadletter.reasons import REASONS
from k2stream.errors import SettingsError
from k2stream.settings import load_settings
from k2stream.verdict import Reason

PAGE = Path(__file__).parents[2] / "docs" / "dead_letters.md"
BEGIN, END = "<!-- reasons: begin -->\n", "<!-- reasons: end -->"


def table() -> str:
    rows = (f"| `{reason.value}` | {known.says} | {known.cause} | {known.remedy} |" for reason, known in REASONS.items())
    return "\n".join(["| reason | what it says | usual cause | what to do |", "|---|---|---|---|", *rows, ""])


def test_every_reason_is_explained_in_full() -> None:
    """A letter whose reason nobody explains helps nobody; each part is a sentence."""
    assert set(REASONS) == set(Reason)
    assert [r for r, known in REASONS.items() if not all(part.endswith(".") and len(part) > 10 for part in known)] == []


def test_the_page_lists_every_reason_as_the_code_does() -> None:
    """What the docs say of a reason is what `k2 dlq reasons` and a letter's story say."""
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == table(), "run: python tests/unit/test_reasons.py"


def test_the_command_line_explains_every_reason() -> None:
    """Without a home, a worker or a table."""
    said = CliRunner().invoke(app, ["dlq", "reasons"]).output
    assert [reason for reason, known in REASONS.items() if known.remedy not in said or f"{reason.value}\n" not in said] == []


@pytest.mark.parametrize(("reasons", "is_known"), [("unknown_schema, bad_magic", True), ("", True), ("unknown_schema,unknown_shema", False)])
def test_a_misspelt_reason_never_leaves_the_agent_idle(monkeypatch: pytest.MonkeyPatch, reasons: str, is_known: bool) -> None:
    """It is named at the start; without that nothing would be sent back, and nobody would hear why."""
    monkeypatch.setenv("K2_REPLAY_REASONS", reasons)
    with nullcontext() if is_known else pytest.raises(SettingsError, match=r"K2_REPLAY_REASONS.*found unknown_shema"):
        load_settings()


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
