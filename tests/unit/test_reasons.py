"""Every reason is explained, and docs/dead_letters.md says the same. `python tests/unit/test_reasons.py` writes its table anew."""

import sys
from pathlib import Path

from typer.testing import CliRunner

from k2stream.cli import app
from k2stream.deadletter.reasons import REASONS
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


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
