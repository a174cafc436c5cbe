"""K2_HOME: the folder that holds everything the embedded default keeps, the user's alone.

A home carries a mark file, `.k2home`. Only a folder that was empty, or held nothing but names of ours, becomes one;
what lay there before is written down in the mark and never removed. Workers hold the mark with a shared lock as long
as they live (the kernel lets go when a process dies, however it dies); `reset` takes it alone, or refuses.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2stream.errors import HomeError

MARK = ".k2home"

MADE = frozenset(
    {
        "log",
        "redis",
        "feed",
        "dev",
        "chaos",
        "migrations",
        "upkeep",
        "load",
        "catalog.db",
        "catalog.db-wal",
        "catalog.db-shm",
        "catalog.db-journal",
        "warehouse",
        "faust",
        "schemas",
        "demo.json",
        "replay.lock",
        "worker.log",
    }
)
"""Every name that k2stream makes directly under K2_HOME; a test holds the code to it."""

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Home:
    """One K2_HOME, made and marked."""

    def __init__(self, path: Path, kept: frozenset[str]) -> None:
        self.path = path
        self.kept = kept
        """Names that lay there before the folder became a home."""

    @classmethod
    def open(cls, path: Path) -> "Home":
        """The home at `path`, made where there is none. Raises HomeError if the folder is not ours or cannot be written."""
        path = path.absolute()
        with _plainly(path):
            if path.exists() and not path.is_dir():
                raise HomeError(f"K2_HOME is {path}, which is a file. Name a folder.")
            path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            if not (path / MARK).exists():
                _mark(path)
            if stat.S_IMODE(path.stat().st_mode) != FOLDER_MODE:
                path.chmod(FOLDER_MODE)
            return cls(path, _kept_of(path / MARK))

    @classmethod
    def find(cls, path: Path) -> "Home | None":
        """The home at `path` if there is one; makes nothing. Raises HomeError if its mark cannot be read."""
        path = path.absolute()
        with _plainly(path):
            return cls(path, _kept_of(path / MARK)) if (path / MARK).exists() else None

    def hold(self) -> "Hold":
        """Keep `reset` away until the hold is closed or this process ends; any number of workers may."""
        return Hold(self.path / MARK, fcntl.LOCK_SH)

    def made(self) -> list[str]:
        """What k2stream made here, by name."""
        return sorted(name for name in os.listdir(self.path) if name in MADE and name not in self.kept)

    def reset(self) -> list[str]:
        """Remove what k2stream made and say what it was. Raises HomeError while a worker lives; nothing is removed then."""
        with Hold(self.path / MARK, fcntl.LOCK_EX), _plainly(self.path):
            names = self.made()
            for name in names:
                _remove(self.path / name)
            return names

    def free_bytes(self) -> int:
        """Room left on its disk."""
        return shutil.disk_usage(self.path).free


class Hold:
    """A lock on a home's mark file; taken at once or refused."""

    def __init__(self, mark: Path, kind: int) -> None:
        """Raises HomeError if somebody holds the home in a way that `kind` excludes."""
        with _plainly(mark.parent):
            self._file = os.open(mark, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except OSError as exc:
            self.close()
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise HomeError(f"{mark.parent} is on a disk that cannot lock files ({exc.strerror}). Put K2_HOME on a local disk.") from exc
            if kind == fcntl.LOCK_SH:
                raise HomeError(f"{mark.parent} is being reset by another process. Wait for it, then start again.") from exc
            raise HomeError(f"A worker runs in {mark.parent}, or a server of `k2 dev`. Stop it first; nothing was removed.") from exc

    def close(self) -> None:
        """Let go; twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mark(path: Path) -> None:
    """Make the folder ours; one that holds anybody else's things is refused."""
    found = frozenset(name for name in os.listdir(path) if not name.startswith(f"{MARK}."))
    foreign = sorted(found - MADE)
    if foreign:
        some = ", ".join(foreign[:3])
        raise HomeError(f"{path} holds things that k2 did not make ({some}). Set K2_HOME to a new or empty folder.")
    if path.stat().st_uid != os.geteuid():
        raise HomeError(f"{path} belongs to another user. Set K2_HOME to a folder of your own.")
    text = json.dumps({"k2home": 1, "kept": sorted(found), "note": "k2 reset removes what k2 made here, and only that"})
    # Written aside and linked, so that two starting at once, or a crash, never leave half a mark.
    aside = path / f"{MARK}.{os.getpid()}"
    aside.touch(mode=FILE_MODE)
    try:
        aside.write_text(text + "\n", encoding="utf-8")
        os.link(aside, path / MARK)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _kept_of(mark: Path) -> frozenset[str]:
    try:
        said = json.loads(mark.read_text(encoding="utf-8"))
        return frozenset(str(name) for name in said["kept"])
    except (ValueError, KeyError, TypeError) as exc:
        raise HomeError(f"{mark} is not a mark file of k2. Set K2_HOME to another folder.") from exc


def _remove(path: Path) -> None:
    """A file, a link itself, or a folder with what is in it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """What the system says about a folder, as one sentence."""
    try:
        yield
    except OSError as exc:
        match exc.errno:
            case errno.EROFS | errno.EACCES | errno.EPERM:
                what = "cannot be written. Give yourself the right to, or set K2_HOME to another folder"
            case errno.ENOSPC | errno.EDQUOT:
                what = "is on a full disk. Free some space, or set K2_HOME to another disk"
            case errno.ENOTDIR | errno.EEXIST:
                what = "lies below a file. Set K2_HOME to a folder"
            case _:
                what = f"cannot be used ({exc.strerror})"
        raise HomeError(f"K2_HOME ({path}) {what}.") from exc
