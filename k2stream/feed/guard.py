"""What was published of each session before: a source that changed its past would give old numbers to other trades."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2stream.errors import FeedError
from k2stream.feed.recording import Recording

E_CHANGED = (
    "{key}: its first {rows:,} rows were published with hash {known}, and now have hash {found} ({now:,} rows). Numbers count rows, so these would "
    "take the ids of others. Put the old file back, or start with a new K2_HOME."
)

FILE_MODE, FOLDER_MODE = 0o600, 0o700


class Prefix(NamedTuple):
    """How much of a session was published, and what it was."""

    rows: int
    digest: str


class SessionGuard:
    """Remembers, in one small file, rows and hash of every session that was published. One user at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def admit(self, recordings: Sequence[Recording]) -> None:
        """Call with whole recordings, before any limit and before publishing; on disk when it returns.

        A session may have grown. Raises FeedError with both hashes if one does not begin as it did; nothing is remembered then.
        """
        known = self._known()
        for recording in recordings:
            for key, rows in _sessions(recording):
                before = known.get(key)
                if before is not None:
                    _check(key, before, rows)
                known[key] = Prefix(rows.num_rows, _digest(rows))
        self._remember(known)

    def _known(self) -> dict[str, Prefix]:
        try:
            return {key: Prefix(*said) for key, said in json.loads(self._path.read_text(encoding="utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as exc:
            raise FeedError(f"{self._path} is damaged: {exc}. Delete it if the recordings are those that were published before.") from exc

    def _remember(self, known: dict[str, Prefix]) -> None:
        try:
            self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            aside = self._path.with_suffix(f".{os.getpid()}")
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w", encoding="utf-8") as file:
                json.dump(known, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        except OSError as exc:
            raise FeedError(f"{self._path} cannot be written ({exc.strerror}). Mend the folder; nothing was published.") from exc


def _sessions(recording: Recording) -> Iterator[tuple[str, pa.Table]]:
    """Rows of each session under its name."""
    for symbol in {s.symbol: None for s in recording.sessions}:
        rows = recording.rows.filter(pc.equal(recording.rows["symbol"].cast(pa.string()), symbol))
        at = 0
        for session in (s for s in recording.sessions if s.symbol == symbol):
            yield f"{recording.topic}/{symbol}/{session.name}", rows.slice(at, session.rows)
            at += session.rows


def _check(key: str, before: Prefix, rows: pa.Table) -> None:
    found = _digest(rows.slice(0, before.rows))
    if rows.num_rows < before.rows or found != before.digest:
        raise FeedError(E_CHANGED.format(key=key, rows=before.rows, known=before.digest, found=found, now=rows.num_rows))


def _digest(rows: pa.Table) -> str:
    """Over event times and all decimals, as plain little-endian values: it must not change with a library's version."""
    digest = hashlib.sha256()
    for field in rows.schema:
        if field.name == "timestamp":
            digest.update(rows[field.name].cast(pa.int64()).to_numpy().astype("<i8").tobytes())
        elif pa.types.is_decimal(field.type):
            for chunk in rows[field.name].chunks:
                words = np.frombuffer(chunk.buffers()[1], "<i8")
                digest.update(words[2 * chunk.offset : 2 * (chunk.offset + len(chunk))].tobytes())
    return digest.hexdigest()[:16]
