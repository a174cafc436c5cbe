"""House rules that no linter knows: who reads the environment and the clock, what the application declares, which words are left out."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.home import MADE

ROOT = Path(__file__).parents[2]
SHIPPED = ("k2stream", "agents", "tables")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in SHIPPED:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


MODULES = dict(modules())


def names_used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Dotted names, as written, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node), node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def users_of(pattern: str) -> set[str]:
    return {path for path, tree in MODULES.items() if any(re.fullmatch(pattern, name) for name, _ in names_used(tree))}


def test_only_settings_reads_the_environment() -> None:
    """A knob read elsewhere would be missing from the README and from `k2 doctor`."""
    assert users_of(r"os\.(environ|environb|getenv)(\..*)?") == {"k2stream/settings.py"}


def test_no_agent_subscribes_by_faust_pattern() -> None:
    """`app.topic(pattern=...)` subscribes to nothing in Faust, silently."""
    calls = [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("topic") and any(k.arg == "pattern" for k in node.keywords)
    ]
    assert calls == []


def test_nothing_is_pickled() -> None:
    """Bytes from a disk or a server must never be able to run code."""
    importers = [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] in {"pickle", "cloudpickle", "dill", "marshal", "shelve"} for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"pickle", "cloudpickle", "dill", "marshal", "shelve"})
    ]
    assert importers == []


def test_every_name_under_the_home_is_one_that_reset_knows() -> None:
    """A file under K2_HOME that `reset` does not know would outlive it."""
    used = {
        node.args[0].value
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("home_path") and node.args and isinstance(node.args[0], ast.Constant)
    }
    assert used - MADE == set()


def test_every_agent_and_table_has_a_pinned_name() -> None:
    """Faust derives names from modules; moving a file would then start a new changelog and a new group."""
    agents = {
        ast.unparse(decorator)
        for path, tree in MODULES.items()
        if path.startswith("agents/")
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).startswith("app.agent")
    }
    assert {a for a in agents if "name=" not in a} == set()
    assert {match for a in agents for match in re.findall(r"name='(\w+)'", a)} == {"trades", "quotes", "instruments"}


def test_no_agent_function_shares_its_modules_name() -> None:
    """`from agents import trades` must stay the module."""
    same = [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        if path.startswith("agents/")
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name == Path(path).stem
    ]
    assert same == []


@pytest.mark.parametrize("folder", ["utils", "util", "helpers", "common", "misc"])
def test_no_module_is_a_drawer(folder: str) -> None:
    """A module is named after what it holds."""
    assert [path for path in MODULES if folder in Path(path).with_suffix("").parts] == []


def test_modules_stay_short() -> None:
    """A file of more than 400 lines, blank ones left out, is two things."""
    long = {path: lines for path in MODULES if (lines := sum(map(bool, (ROOT / path).read_text(encoding="utf-8").split("\n")))) > 400}
    assert long == {}


def test_every_module_says_what_it_owns() -> None:
    """The first line of a module is a sentence; empty package files need none."""
    assert [path for path, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the list of files that git keeps")
def test_what_types_set_aside_says_which_and_why() -> None:
    """A bare word would hide the next error on its line too."""
    marker = "# type: " + "ignore"
    bare = [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for package in (*SHIPPED, "tests")
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marker in line and not re.search(rf"{marker}\[[a-z, -]+\] +# \S", line)
    ]
    assert bare == []


def test_no_file_names_a_machine() -> None:
    """A path of somebody's machine, or a package host, in a file breaks on every other machine."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    # Written in pieces, so that this file does not find itself.
    forbidden = re.compile("|".join(("/" + "root/", "/" + "work/", "/" + "home/[a-z]+/", "files" + r"\.pythonhosted", "pypi" + r"\.org/simple")))
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".gz", ".zst", ".parquet", ".png"}:
            found += [name for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if forbidden.search(line)]
    assert sorted(set(found)) == []


def test_the_wheel_carries_contracts_and_recordings() -> None:
    """What is read at run time lies inside the package."""
    assert {path.name for path in (ROOT / "k2stream" / "schemas").glob("*.avsc")} >= {"trade_v2.avsc", "quote_v2.avsc", "reference_data_v2.avsc"}
