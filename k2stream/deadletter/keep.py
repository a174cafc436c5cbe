"""Letters that no window brings, such as lines of files, into the table of dead letters; each once by its origin."""

from collections.abc import Sequence
from uuid import uuid4

import pyarrow as pa

from k2stream.clock import Clock, SystemClock
from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.rows import DEAD_LETTERS, letter_rows
from k2stream.lake.declaration import COMMIT_FIELDS
from k2stream.lake.journal import Journal
from k2stream.query.engine import Engine
from k2stream.query.letters import held_origins
from k2stream.settings import Settings


def keep_letters(settings: Settings, letters: Sequence[Letter], *, clock: Clock | None = None) -> int:
    """How many of them were new to the table; asked again after an error, none comes twice. One writer of one file at a time. Raises LakeError."""
    if not letters:
        return 0
    written_at_us = (clock or SystemClock()).now_us()
    with Journal(settings, DEAD_LETTERS) as journal, Engine.of(settings) as engine:
        by_origin = {letter.origin: letter for letter in letters}
        held = held_origins(engine, journal.files(), list(by_origin))
        new = [letter for origin, letter in by_origin.items() if origin not in held]
        rows = letter_rows(new)
        for field, value in zip(COMMIT_FIELDS, (str(uuid4()), written_at_us), strict=True):
            rows = rows.append_column(field, pa.array([value] * rows.num_rows, field.type))
        journal.append(rows)
        return len(new)
