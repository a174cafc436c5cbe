"""How far a long job is: one JSON file, for one process at a time, replaced whole."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k2stream.errors import K2Error


class ProgressFile:
    """One job's file; what is wrong is raised as `error`."""

    def __init__(self, path: Path, *, error: type[K2Error], does: str) -> None:
        """`does`: what the job does, as in "migrates"."""
        self.path = path
        self._error, self._does = error, does

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else does the same meanwhile, or an error; the kernel lets go when this process dies."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise self._error(f"Another process {self._does} by {self.path} right now. Wait for it, or stop it.") from exc
            yield
        finally:
            os.close(lock)

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None if nothing was. Raises ValueError for a file that is not JSON."""
        try:
            fields: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            return fields
        except FileNotFoundError:
            return None

    def save(self, fields: Mapping[str, Any]) -> None:
        """On disk before it returns: a crash leaves what was saved before or this."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".progress-")  # mode 600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(fields, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
