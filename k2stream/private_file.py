"""A database's file, made for its owner alone before SQLite opens it; SQLite gives its side files the same mode."""

import os
import threading
from contextlib import suppress
from pathlib import Path

MODE = 0o600

_making = threading.Lock()


def make_private_file(path: Path) -> None:
    """Make an empty file unless there is one; raises OSError.

    A file that exists is not even opened: closing any descriptor of it would drop all the locks that this process's other
    connections hold on it (POSIX), and the next process to leave would delete the write-ahead file under them, with what
    they wrote. The lock keeps a second thread from connecting between our making and our closing.
    """
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
