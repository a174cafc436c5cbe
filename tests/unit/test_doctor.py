"""`k2 doctor` says what is wrong and how to mend it, and makes nothing."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream import doctor
from k2stream.doctor import Finding, examine, is_well
from k2stream.home import Home


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets, a home that is not there, and a port that is free."""
    for name in [name for name in os.environ if name.startswith("K2_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("K2_HOME", str(tmp_path / "k2"))
    monkeypatch.setenv("K2_WEB_PORT", "0")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


def found(what: str) -> list[Finding]:
    return [finding for finding in examine() if finding.what == what]


def test_a_new_machine_is_well_and_stays_untouched(tmp_path: Path) -> None:
    """Before the first run nothing is wrong, and looking makes no home."""
    assert is_well(examine())
    assert not (tmp_path / "k2").exists()


def test_every_part_has_its_line() -> None:
    """The list is complete and in the order in which a worker needs its parts."""
    assert [f.what for f in examine()] == ["settings", *doctor.CHECKS]


def test_a_wrong_setting_is_the_only_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else can be judged by settings that are wrong."""
    monkeypatch.setenv("K2_WINDOW_ROWS", "many")
    (finding,) = examine()
    assert finding.verdict == "wrong"
    assert "K2_WINDOW_ROWS='many'" in finding.says


def test_a_misspelt_setting_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """K2_HOEM would be ignored in silence."""
    monkeypatch.setenv("K2_HOEM", "x")
    assert [(f.verdict, "K2_HOEM" in f.says) for f in found("settings")] == [("ok", False), ("note", True)]


def test_a_foreign_home_is_wrong(tmp_path: Path) -> None:
    """A folder that holds somebody else's things cannot be a home."""
    (tmp_path / "k2").mkdir()
    (tmp_path / "k2" / "thesis.tex").touch()
    (finding,) = found("home")
    assert finding.verdict == "wrong"
    assert "K2_HOME" in finding.says


def test_a_home_says_what_is_in_it(tmp_path: Path) -> None:
    """What reset would remove, and how much room is left."""
    Home.open(tmp_path / "k2")
    (tmp_path / "k2" / "warehouse").mkdir()
    (finding,) = found("home")
    assert "warehouse" in finding.says


def test_a_port_in_use_is_wrong_and_says_which_setting_mends_it(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    """Faust would end in a traceback."""
    monkeypatch.setenv("K2_WEB_PORT", str(taken_port))
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)
    (finding,) = found("web")
    assert finding.verdict == "wrong"
    assert "K2_WEB_PORT" in finding.says


def test_a_registry_that_is_away_is_wrong(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    """Records could not be decoded without it."""
    monkeypatch.setenv("K2_REGISTRY_URL", "http://127.0.0.1:1")
    (finding,) = found("registry")
    assert finding.verdict == "wrong"
    assert "did not answer" in finding.says


def test_a_registry_must_be_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file:// URL would be read from the disk."""
    monkeypatch.setenv("K2_REGISTRY_URL", "file:///etc/hosts")
    (finding,) = found("registry")
    assert finding.verdict == "wrong"


def test_redis_away_is_a_note_for_redis_is_expendable(monkeypatch: pytest.MonkeyPatch) -> None:
    """All promises hold without it; and its password is not shown."""
    monkeypatch.setenv("K2_REDIS_URL", "redis://user:secret@127.0.0.1:1/0")
    (finding,) = found("state")
    assert finding.verdict == "note"
    assert "secret" not in finding.says


def test_a_log_that_is_no_log_is_wrong(tmp_path: Path) -> None:
    """Damaged files are said to be, in one sentence."""
    Home.open(tmp_path / "k2")
    (tmp_path / "k2" / "catalog.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    (finding,) = found("catalog")
    assert finding.verdict == "wrong"


def test_away_from_a_checkout_the_agents_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed wheel holds the library only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("k2stream.checkout.k2stream.__file__", str(tmp_path / "site" / "k2stream" / "__init__.py"))
    (finding,) = found("agents")
    assert finding.verdict == "wrong"
    assert "checkout" in finding.says


def test_a_foreign_package_of_our_name_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTables imports as `tables` too; taken for ours it would fail far from the cause."""
    import types

    foreign = types.ModuleType("tables")
    foreign.__file__ = str(tmp_path / "site-packages" / "tables" / "__init__.py")
    monkeypatch.setitem(__import__("sys").modules, "tables", foreign)
    (finding,) = found("agents")
    assert finding.verdict == "wrong"
    assert "site-packages" in finding.says
