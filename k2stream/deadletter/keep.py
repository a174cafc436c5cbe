"""Letters that no window brings, such as lines of files, into the table of dead letters; each once by its origin."""

from collections.abc import Sequence
from uuid import uuid4

import pyarrow as pa
import structlog

from k2stream.clock import Clock, SystemClock
from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.rows import DEAD_LETTERS, letter_rows
from k2stream.errors import LakeError
from k2stream.lake.declaration import COMMIT_FIELDS
from k2stream.lake.journal import Journal
from k2stream.query.engine import Engine
from k2stream.query.letters import held_origins
from k2stream.settings import Settings

log = structlog.get_logger(__name__)


def keep_letters(settings: Settings, letters: Sequence[Letter], *, clock: Clock | None = None) -> int:
    """How many of them were new to the table; 0 if it cannot be written now, for their topic has them. One writer of one file at a time."""
    try:
        return _keep(settings, letters, clock or SystemClock()) if letters else 0
    except LakeError as exc:
        log.warning("letters.not_in_table", letters=len(letters), cause=str(exc), then="their topic keeps them 30 days")
        return 0


def _keep(settings: Settings, letters: Sequence[Letter], clock: Clock) -> int:
    with Journal(settings, DEAD_LETTERS) as journal, Engine.of(settings) as engine:
        by_origin = {letter.origin: letter for letter in letters}
        held = held_origins(engine, journal.files(), list(by_origin))
        new = [letter for origin, letter in by_origin.items() if origin not in held]
        rows = letter_rows(new)
        for field, value in zip(COMMIT_FIELDS, (str(uuid4()), clock.now_us()), strict=True):
            rows = rows.append_column(field, pa.array([value] * rows.num_rows, field.type))
        journal.append(rows)
        return len(new)
