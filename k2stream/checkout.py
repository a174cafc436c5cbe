"""Where `agents` and `tables` are: the wheel holds k2stream only, the application runs from a checkout or the image."""

import importlib.machinery
import sys
from pathlib import Path

import k2stream
from k2stream.errors import K2Error

NAMES = ("agents", "tables")
"""Packages of the application; PyTables also installs a `tables`, openai-agents an `agents`."""


def find_root() -> Path:
    """The folder that holds the application: the working folder, else the checkout that k2stream runs from.

    Raises K2Error where there is none, or where another package of the same name would be taken for ours.
    """
    places = (Path.cwd(), Path(k2stream.__file__).parents[1])
    root = next((place for place in places if is_root(place)), None)
    if root is None:
        raise K2Error(f"The agents are not in {places[0]}. They run from a checkout of k2stream or from its image: go there and run the same again.")
    for name in NAMES:
        found = found_first(name, [str(root), *sys.path])
        if found is None or found.parent != root:
            raise K2Error(f"`import {name}` finds {found}, not {root / name}. Uninstall the package that brings it, or use a virtual environment without it.")
    return root


def is_root(place: Path) -> bool:
    """True for a folder that holds our two packages, told by a file that no other package of these names has."""
    return (place / "agents" / "trades.py").is_file() and (place / "tables" / "lake" / "trades.py").is_file()


def found_first(name: str, path: list[str]) -> Path | None:
    """The package folder that `import name` takes from `path`, or the module's file."""
    already = sys.modules.get(name)
    if already is not None and already.__file__ is not None:
        file = Path(already.__file__)
        return file.parent if file.name == "__init__.py" else file
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is None:
        return None
    return Path(next(iter(spec.submodule_search_locations or [spec.origin or ""])))
