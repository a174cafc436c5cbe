"""The README says what is so: settings, commands and pages. `python tests/unit/test_readme.py` writes the settings table anew."""

import re
import subprocess
import sys
from pathlib import Path

import typer.main

from k2stream.cli import app
from k2stream.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def default_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if str(value) else "empty"


def settings_table() -> str:
    rows = (f"| `K2_{name.upper()}` | {default_of(field.default)} | {field.description} |" for name, field in Settings.model_fields.items())
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows, ""])


def between(begin: str, end: str) -> str:
    return README.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]


def commands() -> set[str]:
    group = typer.main.get_group(app)
    found = set()
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"k2 {name} {sub}" for sub in inner} if inner else {f"k2 {name}"}
    return found


def test_the_settings_table_is_the_settings() -> None:
    """A setting that is missing from the README, or described otherwise, is a lie waiting to be believed."""
    assert between(BEGIN, END) == settings_table(), "run: python tests/unit/test_readme.py"


def test_every_setting_says_what_it_is() -> None:
    """No field without a description."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_commands_listed_are_the_commands() -> None:
    """Neither a command that is not there nor one that nobody is told of."""
    listed = set(re.findall(r"^\| `(k2 [a-z ]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == commands()


def test_options_named_exist() -> None:
    """An option of the table of commands is one that a command has."""
    group = typer.main.get_group(app)
    leaves = [c for command in group.commands.values() for c in (getattr(command, "commands", None) or {"": command}).values()]
    options = {option for leaf in leaves for parameter in leaf.params for option in parameter.opts}
    table = between("## The command line", "## Settings")
    assert set(re.findall(r"--[a-z][a-z-]+", table)) - options == set()


def test_links_lead_somewhere() -> None:
    """A file that the README or the design names is there."""
    for page in (README, ROOT / "docs" / "design.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_help_lists_what_the_readme_uses() -> None:
    """`make demo` and `make test` are targets with a line of help."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = {"test", "test-consistency", "test-services", "soak", "gap-storm", "check", "check-deploy"}
    targets = {"help", "setup", "demo", "services", "env", "bench", "bench-conflicts", "bench-kafka", "bench-latency", "bench-growth", "clean"}
    targets |= {"bench-publisher", "bench-replay", "bench-poison", "bench-compaction", "bench-day", *tests}
    assert set(re.findall(r"^make ([\w-]+)", told, re.MULTILINE)) == targets


if __name__ == "__main__":
    whole = README.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    README.write_text(before + BEGIN + settings_table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(0)
