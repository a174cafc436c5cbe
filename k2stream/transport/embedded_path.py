"""Which folder an `embedded://` URL names, and the lock that keeps a second worker of a group out."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from yarl import URL

from k2stream.errors import HomeError, LogLockedError, SettingsError

UNSAFE = frozenset(",;%?#\\\n\r\t\0")
"""Faust splits URLs at , and ; and yarl reads the others as something else than a letter of a path."""


def folder_of(urls: Sequence[URL]) -> Path:
    """The folder of `embedded:///absolute/path`.

    Refuses every other form with SettingsError: a first part after two slashes would be taken for a host and
    lower-cased, and `,` or `;` would make two brokers of one path.
    """
    shown = " ; ".join(str(u) for u in urls)
    if len(urls) != 1:
        raise SettingsError(f"K2_BROKER or K2_HOME: expected one embedded:///absolute/path without `,` and `;`, found {len(urls)} brokers: {shown}.")
    url = urls[0]
    if url.host or url.query_string or url.fragment or url.user or not url.path.startswith("/") or url.path == "/":
        raise SettingsError(f"K2_BROKER or K2_HOME: expected embedded:///absolute/path (three slashes), found {shown}. Write the path in full.")
    return checked(Path(url.path))


def checked(folder: Path) -> Path:
    """`folder`, or SettingsError if an embedded:// URL could not name it."""
    unsafe = sorted(UNSAFE & set(str(folder)))
    if unsafe or not folder.is_absolute():
        found = f"the characters {unsafe}" if unsafe else "a relative path"
        raise SettingsError(f"K2_HOME: expected an absolute path without , ; % ? # and \\, found {found} in {str(folder)!r}. Choose another folder.")
    return folder


class GroupLock:
    """One worker a group: held from `take` until `free` or the end of the process, whatever ends it."""

    def __init__(self, folder: Path, group: str) -> None:
        self.group = group
        self.path = folder / f"group-{quote(group, safe='')}.lock"
        self._fd: int | None = None

    def take(self) -> None:
        """LogLockedError if another process (or consumer) holds it; HomeError if the file cannot be made."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise HomeError(f"The lock file {self.path} cannot be opened: {exc.strerror}. Give this user write permission there, or set K2_HOME.") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise LogLockedError(
                f"Another worker of group {self.group!r} (process {holder}) reads the log in {self.path.parent}. "
                "The embedded log takes one worker a group: stop that one, or set K2_APP_ID or K2_HOME to something else."
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def free(self) -> None:
        """Let go; harmless if it is not held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
