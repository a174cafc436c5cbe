"""Rejected rows in a file of their own, for people: line, reason, what is wrong, the row as it came."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from k2stream.errors import LoadError
from k2stream.load.chunk import Chunk
from k2stream.load.rows import Refused

COLUMNS = ("line", "reason", "text", "row")


class RejectFile:
    """A CSV file that rows are added to; after a kill some lines may stand there twice."""

    def __init__(self, path: Path) -> None:
        """Raises LoadError if it cannot be written."""
        try:
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
        except OSError as exc:
            raise LoadError(f"{path} cannot be written ({exc.strerror}). Name another file by --rejects.") from exc
        self._writer = csv.writer(self._file)
        if not self._file.tell():
            self._writer.writerow(COLUMNS)

    def add(self, chunk: Chunk, refused: Sequence[Refused]) -> None:
        """On disk before it returns."""
        for row in refused:
            self._writer.writerow((int(chunk.lines[row.number]), row.reason.value, row.text, chunk.raw(row.number).decode(errors="backslashreplace")))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@contextmanager
def rejects_to(path: Path | None) -> Iterator[RejectFile | None]:
    """The file of `path`; none without."""
    if path is None:
        yield None
        return
    file = RejectFile(path)
    try:
        yield file
    finally:
        file.close()
