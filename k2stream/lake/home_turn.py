"""Turns among the processes of one K2_HOME, where no Redis gives them: a lock on a file, let go by the kernel when its holder dies.

A swap of thousands of files takes longer to prepare than a window: without turns a writer that commits without a pause would always be
faster. Advice, as every turn is.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from k2stream.clock import Deadline

log = structlog.get_logger(__name__)

WAIT_SECONDS = 10.0
"""Nobody waits longer: who holds it may be stopped."""
POLL_SECONDS = 0.005


class HomeTurn:
    """Gives turns to all that commit to the tables of one home."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made where it is missing."""
        self._folder = folder

    @contextmanager
    def __call__(self, table: str, deadline: Deadline) -> Iterator[None]:
        """Wait for the turn of `table`, for a while; what is inside is done with it or without."""
        descriptor = self._open(table)
        try:
            if descriptor >= 0:
                _wait(descriptor, table, Deadline.after(min(WAIT_SECONDS, deadline.remaining_seconds())))
            yield
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _open(self, table: str) -> int:
        """-1 where no file can be had."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._folder / f"{table}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return -1


def _wait(descriptor: int, table: str, bound: Deadline) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError:
            return  # a disk that cannot lock
        else:
            return
        if bound.is_over():
            log.info("turn.not_come", table=table, then="committed without it")
            return
        time.sleep(POLL_SECONDS)
