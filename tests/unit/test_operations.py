"""What docs/operations.md says of failures is tested where it says so."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_named_in_the_operations_page_exists() -> None:
    """A table of losses that no test holds would soon be wrong; `…` stands for the rest of a name, and files are named whole."""
    named = re.findall(r"`(test_\w+(?:\.py)?)", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))
    files = list((ROOT / "tests").rglob("test_*.py"))
    defined = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert named
    assert [name for name in named if f"def {name}" not in defined and name not in {path.name for path in files}] == []
