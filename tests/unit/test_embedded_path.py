"""Which folder an embedded:// URL names, and who may read there."""

import subprocess
import sys
from pathlib import Path

import pytest
from yarl import URL

from k2stream.errors import HomeError, LogLockedError, SettingsError
from k2stream.settings import Settings
from k2stream.transport.embedded_path import GroupLock, checked, folder_of
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.open import open_sink


def test_three_slashes_name_a_folder() -> None:
    """Case and spaces of the path stay as they were written."""
    assert folder_of([URL("embedded:///Data/Some Where/log")]) == Path("/Data/Some Where/log")


@pytest.mark.parametrize("url", ["embedded://Data/log", "embedded:///", "embedded://", "embedded:///log?x=1", "embedded:///log#x", "embedded://me@/log"])
def test_form_that_would_be_misread_is_refused(url: str) -> None:
    """A relative path would be taken for a host and lower-cased: two workers would read two logs."""
    with pytest.raises(SettingsError, match="three slashes"):
        folder_of([URL(url)])


def test_two_brokers_are_refused() -> None:
    """Faust splits at comma and semicolon, so a folder with one of them arrives as two URLs."""
    with pytest.raises(SettingsError, match="found 2 brokers"):
        folder_of([URL("embedded:///a"), URL("embedded:///b")])


@pytest.mark.parametrize("folder", ["a,b", "a;b", "a%20b", "a?b", "a#b", "a\nb"])
def test_letters_that_a_url_cannot_carry_are_refused(tmp_path: Path, folder: str) -> None:
    """Said before a worker starts on another folder than the feed."""
    with pytest.raises(SettingsError, match="Choose another folder"):
        checked(tmp_path / folder)


def test_sink_of_the_default_settings_is_the_worker_s_folder(tmp_path: Path) -> None:
    """Feeds and workers meet in one folder without any setting but K2_HOME."""
    settings = Settings(home=tmp_path)
    sink = open_sink(settings)

    assert isinstance(sink, EmbeddedSink)
    assert sink.folder == folder_of([URL(settings.broker_url())]) == tmp_path / "log"


@pytest.mark.parametrize("broker", ["kafka://somewhere:9092", "somewhere:9092", "embedded://relative/log"])
def test_unknown_broker_is_refused_by_name(tmp_path: Path, broker: str) -> None:
    """A form of URL that no transport serves names the setting and the two that are served."""
    with pytest.raises(SettingsError, match="K2_BROKER"):
        open_sink(Settings(home=tmp_path, broker=broker))


HOLD = """
import sys, time
from pathlib import Path
from k2stream.transport.embedded_path import GroupLock
GroupLock(Path(sys.argv[1]), "the group").take()
print("held", flush=True)
time.sleep(60)
"""


def test_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    """A killed worker leaves no lock behind; a living one is named by its process id."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LogLockedError, match=rf"'the group' \(process {holder.pid}\)"):
            GroupLock(tmp_path, "the group").take()
        holder.kill()
    lock = GroupLock(tmp_path, "the group")
    lock.take()
    lock.free()
    lock.free()


def test_groups_do_not_lock_each_other_out(tmp_path: Path) -> None:
    """Groups whose names differ only in letters a file name cannot hold stay apart too."""
    locks = [GroupLock(tmp_path, group) for group in ("a", "a/b", "a%2Fb")]
    for lock in locks:
        lock.take()
    for lock in locks:
        lock.free()

    assert len({lock.path for lock in locks}) == 3


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No traceback where a home was deleted under a worker: one sentence."""
    with pytest.raises(HomeError, match="cannot be opened"):
        GroupLock(tmp_path / "gone", "g").take()
