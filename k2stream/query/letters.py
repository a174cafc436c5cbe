"""Dead letters as people choose them: one line a record, its newest letter, and where that stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import pyarrow as pa

from k2stream.query.engine import Engine
from k2stream.query.pruning import overlapping
from k2stream.table_file import TableFile


class State(StrEnum):
    """Where a record that died stands."""

    OPEN = "open"
    """It may be replayed."""
    UNDER_WAY = "under_way"
    """It is in the log again; no commit has come to it yet."""
    SUPERSEDED = "superseded"
    """Its row is in the table."""
    PARKED = "parked"
    """Somebody said so, or it has died as often as it may; `k2 dlq park --release` opens it again."""
    FILE = "file"
    """A line of a file: mend the file and load it again."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters; what is empty or None asks for any."""

    reasons: Sequence[str] = ()
    topic: str | None = None
    """GLOB of the origin's topic."""
    symbols: Sequence[str] = ()
    start: datetime | None = None
    end: datetime | None = None
    """Of the record's own time: `start <= first_seen < end`."""
    origins: Sequence[str] = ()
    """First origins: what `list` shows as `id`."""
    states: Sequence[State] = ()
    limit: int | None = field(default=None)

    def words(self) -> str:
        """As the trail keeps it."""
        said = {
            "reason": ",".join(self.reasons),
            "topic": self.topic,
            "symbol": ",".join(self.symbols),
            "from": self.start and self.start.isoformat(),
            "to": self.end and self.end.isoformat(),
            "id": ",".join(self.origins[:5]) + (f" and {len(self.origins) - 5} more" if len(self.origins) > 5 else ""),
            "limit": self.limit,
        }
        return " ".join(f"{name}={value}" for name, value in said.items() if value) or "everything"


# A letter may stand in two files (an outbox that has not taken one yet, a rollback): the first that was written counts.
LETTERS = """
SELECT origin, first_origin, attempt, topic, partition, "offset", file, exchange, data_type, symbol, reason, text, schema_id,
  first_seen, written_at
FROM read_parquet($files, hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY origin ORDER BY written_at) = 1
"""

# Of a first origin only the highest attempt is live (design §13.14).
STATES = """
WITH live AS (
  SELECT *, min(first_seen) OVER (PARTITION BY first_origin) AS since FROM letter
  QUALIFY row_number() OVER (PARTITION BY first_origin ORDER BY attempt DESC, written_at DESC, origin) = 1
),
sent AS (SELECT DISTINCT first_origin, attempt FROM trail WHERE act = 'published'),
told AS (SELECT first_origin, attempt, arg_max(outcome, written_at) AS outcome FROM trail WHERE act = 'outcome' GROUP BY first_origin, attempt),
mark AS (
  SELECT first_origin, arg_max(act, written_at) AS act, max(written_at) AS written_at FROM trail
  WHERE act IN ('parked', 'released') GROUP BY first_origin
),
edit AS (SELECT first_origin, max(written_at) AS written_at FROM trail WHERE act = 'edited' GROUP BY first_origin)
SELECT live.first_origin AS id, live.attempt, live.reason, live.topic, live.partition, live."offset", live.symbol, live.since AS first_seen,
  CASE
    WHEN told.outcome IN ('row', 'duplicate', 'marker') THEN 'superseded'
    WHEN sent.first_origin IS NOT NULL AND told.outcome IS NULL THEN 'under_way'
    WHEN live.file IS NOT NULL THEN 'file'
    WHEN mark.act = 'parked' THEN 'parked'
    WHEN live.attempt >= $attempts AND coalesce(mark.written_at, '-infinity') < live.written_at THEN 'parked'
    ELSE 'open'
  END AS state,
  told.outcome, edit.written_at AS edited_at, live.text, live.schema_id, live.origin, live.data_type, live.file
FROM live
LEFT JOIN sent ON live.first_origin = sent.first_origin AND live.attempt = sent.attempt
LEFT JOIN told ON live.first_origin = told.first_origin AND live.attempt = told.attempt
LEFT JOIN mark ON live.first_origin = mark.first_origin
LEFT JOIN edit ON live.first_origin = edit.first_origin
"""

CHOSEN = """
SELECT * FROM standing
WHERE (len($reasons) = 0 OR list_contains($reasons, reason))
AND ($topic IS NULL OR topic GLOB $topic)
AND (len($symbols) = 0 OR list_contains($symbols, symbol))
AND ($start IS NULL OR first_seen >= $start) AND ($stop IS NULL OR first_seen < $stop)
AND (len($origins) = 0 OR list_contains($origins, id))
AND (len($states) = 0 OR list_contains($states, state))
ORDER BY topic, partition, "offset"
LIMIT $most
"""

HISTOGRAM = """
SELECT reason, state, count(*) AS letters, min(first_seen) AS oldest, max(first_seen) AS newest, count(DISTINCT symbol) AS symbols, any_value(id) AS example
FROM standing GROUP BY reason, state ORDER BY letters DESC, reason, state
"""

WHOLE = """
SELECT * EXCLUDE (commit_id, written_at) FROM read_parquet($files, hive_partitioning = false)
WHERE list_contains($origins, origin)
QUALIFY row_number() OVER (PARTITION BY origin ORDER BY written_at) = 1
"""

TRAIL = "SELECT * FROM read_parquet($files, hive_partitioning = false) ORDER BY written_at"

ROWS_AT = """
SELECT DISTINCT asked.topic, asked.partition, asked."offset" FROM asked
SEMI JOIN (SELECT topic, partition, "offset" FROM read_parquet($files, hive_partitioning = false) WHERE "offset" BETWEEN $first AND $last) held
ON asked.topic = held.topic AND asked.partition = held.partition AND asked."offset" = held."offset"
"""

DEAD_AT = """
SELECT origin, first(reason ORDER BY written_at) AS reason FROM letter WHERE list_contains($origins, origin) GROUP BY origin
"""


SIZES = """
SELECT origin, any_value(coalesce(octet_length(value), 0))::BIGINT AS size_bytes
FROM read_parquet($files, hive_partitioning = false) WHERE list_contains($origins, origin) GROUP BY origin
"""

ORIGINS = """
SELECT DISTINCT topic, partition, "offset" FROM read_parquet($files, hive_partitioning = false) WHERE file IS NULL
"""

HELD = """
SELECT DISTINCT origin FROM read_parquet($files, hive_partitioning = false) WHERE list_contains($origins, origin)
"""


def origins_in_log(engine: Engine, files: Sequence[TableFile]) -> set[tuple[str, int, int]]:
    """Topic, partition and offset of every letter whose record came from a log; raises QueryError."""
    if not files:
        return set()
    found = engine.ask(ORIGINS, files=files)
    return set(zip(*(found[name].to_pylist() for name in ("topic", "partition", "offset")), strict=True))


def held_origins(engine: Engine, files: Sequence[TableFile], origins: Sequence[str]) -> set[str]:
    """Which of these letters the table has; raises QueryError."""
    worth = overlapping(files, "origin", first=min(origins), last=max(origins))
    return set(engine.ask(HELD, files=worth, values={"origins": list(origins)})["origin"].to_pylist()) if worth else set()


def letters(engine: Engine, files: Sequence[TableFile]) -> pa.Table | None:
    """Every letter but its bytes, each once; None if there are none. Raises QueryError."""
    return engine.ask(LETTERS, files=files) if files else None


def standing(engine: Engine, letter: pa.Table, trail: pa.Table, *, attempts: int) -> pa.Table:
    """One line a record that died, with its state; a letter of `attempts` deaths is parked."""
    return engine.ask(STATES, values={"attempts": attempts}, tables={"letter": letter, "trail": trail})


def chosen(engine: Engine, found: pa.Table, selection: Selection) -> pa.Table:
    """The lines that the selection asks for, in the order of their origins."""
    values = {
        "reasons": list(selection.reasons),
        "topic": selection.topic,
        "symbols": list(selection.symbols),
        "start": selection.start,
        "stop": selection.end,
        "origins": list(selection.origins),
        "states": [state.value for state in selection.states],
        "most": (1 << 62) if selection.limit is None else selection.limit,
    }
    return engine.ask(CHOSEN, values=values, tables={"standing": found})


def histogram(engine: Engine, found: pa.Table) -> pa.Table:
    """Letters by reason and state."""
    return engine.ask(HISTOGRAM, tables={"standing": found})


def whole(engine: Engine, files: Sequence[TableFile], origins: Sequence[str]) -> pa.Table:
    """The letters of these origins with their bytes, as k2stream.deadletter.rows.LETTERS; raises QueryError."""
    worth = overlapping(files, "origin", first=min(origins), last=max(origins))
    return engine.ask(WHOLE, files=worth, values={"origins": list(origins)})


def sizes(engine: Engine, files: Sequence[TableFile], origins: Sequence[str]) -> dict[str, int]:
    """Bytes of the values of these letters by origin; reads the values of their files. Raises QueryError."""
    worth = overlapping(files, "origin", first=min(origins), last=max(origins)) if origins else []
    found = engine.ask(SIZES, files=worth, values={"origins": list(origins)}) if worth else None
    return {} if found is None else dict(zip(found["origin"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))


def trail_of(engine: Engine, files: Sequence[TableFile]) -> pa.Table | None:
    """All rows of `replays` in the order of time; None if there are none."""
    return engine.ask(TRAIL, files=files) if files else None


def rows_at(engine: Engine, files: Sequence[TableFile], asked: pa.Table) -> set[tuple[str, int, int]]:
    """Which of these origins (topic, partition, offset) have a row; raises QueryError."""
    if not asked.num_rows:
        return set()
    offsets = asked["offset"].to_pylist()
    first, last = min(offsets), max(offsets)
    worth = overlapping(files, "offset", first=first, last=last)
    if not worth:
        return set()
    found = engine.ask(ROWS_AT, files=worth, values={"first": first, "last": last}, tables={"asked": asked})
    return set(zip(*(found[name].to_pylist() for name in ("topic", "partition", "offset")), strict=True))


def dead_at(engine: Engine, letter: pa.Table, origins: Sequence[str]) -> dict[str, str]:
    """Reason by origin of those that are letters."""
    found = engine.ask(DEAD_AT, values={"origins": list(origins)}, tables={"letter": letter})
    return dict(zip(found["origin"].to_pylist(), found["reason"].to_pylist(), strict=True))
