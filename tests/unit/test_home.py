"""K2_HOME: what is ours is ours, what is not is never touched."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.errors import HomeError
from k2stream.home import MADE, MARK, Home

NOBODY = 65534

HOLDER = """
import sys, time
from pathlib import Path
from k2stream.home import Home
hold = Home.open(Path(sys.argv[1])).hold()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "k2")


def test_a_new_home_is_the_users_alone(home: Home) -> None:
    """Nobody else may look into a home or its mark."""
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((home.path / MARK).stat().st_mode) == 0o600
    assert os.listdir(home.path) == [MARK]


def test_a_home_made_too_open_is_closed(tmp_path: Path) -> None:
    """A folder that others can read is shut when it becomes a home."""
    (tmp_path / "k2").mkdir(mode=0o755)
    assert stat.S_IMODE(Home.open(tmp_path / "k2").path.stat().st_mode) == 0o700


def test_opening_twice_changes_nothing(home: Home) -> None:
    """The mark of the first time stays."""
    before = (home.path / MARK).read_bytes()
    (home.path / "catalog.db").touch()
    assert Home.open(home.path).made() == ["catalog.db"]
    assert before == (home.path / MARK).read_bytes()


def test_a_foreign_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """K2_HOME=~ would otherwise end in `reset` of a home folder."""
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(HomeError, match=r"holds things that k2 did not make \(letter.txt\)"):
        Home.open(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


@pytest.fixture
def without_root() -> Iterator[Path]:
    """A folder of a user who is not root: root may write anywhere."""
    user, root = os.geteuid(), 0
    if user == root:
        os.seteuid(NOBODY)
    try:
        with tempfile.TemporaryDirectory(prefix="k2-home-") as folder:
            yield Path(folder)
            Path(folder).chmod(0o700)
    finally:
        os.seteuid(user)


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """Said plainly, also when the file lies higher up."""
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match="which is a file"):
        Home.open(tmp_path / "file")
    with pytest.raises(HomeError, match="lies below a file"):
        Home.open(tmp_path / "file" / "k2")


def test_a_read_only_parent_is_a_plain_sentence(without_root: Path) -> None:
    """Without the right to write, one sentence says where and what to do."""
    without_root.chmod(0o500)
    with pytest.raises(HomeError, match="cannot be written"):
        Home.open(without_root / "k2")


def test_a_system_folder_is_refused_plainly() -> None:
    """A folder that nobody can write to, not even root."""
    with pytest.raises(HomeError, match="K2_HOME"):
        Home.open(Path("/proc/k2"))


def test_find_makes_nothing(tmp_path: Path) -> None:
    """Asking for a home is not making one."""
    assert Home.find(tmp_path / "k2") is None
    assert not (tmp_path / "k2").exists()


def test_a_strange_mark_is_no_mark(tmp_path: Path) -> None:
    """A `.k2home` of somebody else does not open the folder to reset."""
    (tmp_path / MARK).write_text("my notes")
    with pytest.raises(HomeError, match="not a mark file"):
        Home.open(tmp_path)


def test_reset_removes_only_what_k2_made(home: Home) -> None:
    """Things that somebody put into a home later stay."""
    for name in ("warehouse", "log", "mine"):
        (home.path / name).mkdir()
        (home.path / name / "file").touch()
    (home.path / "catalog.db").touch()
    assert home.reset() == ["catalog.db", "log", "warehouse"]
    assert sorted(os.listdir(home.path)) == [MARK, "mine"]
    assert (home.path / "mine" / "file").exists()


def test_reset_keeps_what_was_there_before_the_mark(tmp_path: Path) -> None:
    """A folder `log` of somebody else's, in a folder that became a home, is not ours by its name."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "precious").touch()
    home = Home.open(tmp_path)
    (tmp_path / "catalog.db").touch()
    assert home.reset() == ["catalog.db"]
    assert (tmp_path / "log" / "precious").exists()


def test_reset_does_not_follow_links(home: Home, tmp_path: Path) -> None:
    """A warehouse that is a link to elsewhere loses the link, not what it points to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (home.path / "warehouse").symlink_to(tmp_path / "elsewhere")
    assert home.reset() == ["warehouse"]
    assert (tmp_path / "elsewhere" / "file").exists()


def test_reset_waits_for_no_worker_it_refuses(home: Home) -> None:
    """While one of two workers lives nothing is removed; when both are gone everything is."""
    (home.path / "log").mkdir()
    first, second = home.hold(), home.hold()
    first.close()
    with pytest.raises(HomeError, match="A worker runs in"):
        home.reset()
    assert home.made() == ["log"]
    second.close()
    assert home.reset() == ["log"]


def test_a_worker_killed_lets_go(home: Home) -> None:
    """A hold dies with its process, however that dies."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(home.path)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        with pytest.raises(HomeError, match="A worker runs in"):
            home.reset()
        worker.send_signal(signal.SIGKILL)
    assert home.reset() == []


def test_a_hold_is_not_inherited(home: Home) -> None:
    """A server that a worker left behind does not keep the home held."""
    hold = home.hold()
    with subprocess.Popen(["sleep", "30"]) as child:
        hold.close()
        assert home.reset() == []
        child.kill()


def test_names_of_ours_are_plain(home: Home) -> None:
    """No name leads out of the home."""
    assert not [name for name in MADE if "/" in name or name in ("", ".", "..")]
