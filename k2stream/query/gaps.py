"""What became of each gap: the events of the gaps table folded into one row a gap, and the rows around its hole.

What is missing of a gap only ever shrinks and "filled" is final, so the fold asks for no order of the events: late files, compaction
and two workers' appends change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import pyarrow as pa

from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Vector
from k2stream.query.engine import Engine
from k2stream.query.pruning import micros
from k2stream.query.questions import files_for
from k2stream.rows import TIMESTAMP
from k2stream.table_file import TableFile


class State(StrEnum):
    """What a gap is now."""

    OPEN = "open"
    SHRUNK = "shrunk"
    FILLED = "filled"
    WAIVED = "waived"


OWING = (State.OPEN, State.SHRUNK)
"""States in which something is missing and nobody accepted it."""

GAPS = pa.schema(
    [
        ("gap_id", pa.string()),
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("data_type", pa.string()),
        ("state", pa.string()),
        ("cause", pa.string()),
        ("first_sequence", pa.int64()),
        ("last_sequence", pa.int64()),
        ("size", pa.int64()),
        ("missing", pa.int64()),
        ("after", TIMESTAMP),
        ("before", TIMESTAMP),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("opened_at", TIMESTAMP),
        ("changed_at", TIMESTAMP),
        ("waived_at", TIMESTAMP),
        ("waived_by", pa.string()),
        ("waived_because", pa.string()),
    ]
)
"""One row a gap. `after` and `before` are event times of the rows on both sides of the hole, the others are when a worker wrote it.

size is what was missing at first, missing what is now, both at most 2^63 - 1. topic, partition and offset are those of the row `before`.
"""

REACH = pa.schema([("topic", pa.string()), ("partition", pa.int32()), ("next", pa.int64())])

WRITTEN = pa.schema([*EVENTS, pa.field("written_at", TIMESTAMP)])

ALL_EVENTS = "(SELECT * FROM no_events UNION ALL BY NAME SELECT * FROM read_parquet($files, hive_partitioning = false, union_by_name = true))"
"""Also of files that older versions wrote, without some of the columns."""

FOLD = f"""
WITH folded AS (
  SELECT
    exchange, symbol, data_type, first_sequence, last_sequence,
    coalesce(gap_id, first_sequence || '-' || last_sequence) AS gap_id,
    CASE WHEN bool_or(kind = 'filled') THEN 'filled' WHEN bool_or(kind = 'waived') THEN 'waived'
      WHEN bool_or(kind = 'shrunk') THEN 'shrunk' ELSE 'open' END AS state,
    arg_max(cause, kind = 'opened') AS cause,
    least(last_sequence::HUGEINT - first_sequence + 1, 9223372036854775807)::BIGINT AS size,
    min(missing) AS missing,
    arg_max(previous_timestamp, kind = 'opened') AS "after",
    arg_max(timestamp, kind = 'opened') AS "before",
    arg_max(topic, kind = 'opened') AS topic, arg_max(partition, kind = 'opened') AS partition, arg_max("offset", kind = 'opened') AS "offset",
    min(written_at) AS opened_at, max(written_at) AS changed_at,
    min(written_at) FILTER (kind = 'waived') AS waived_at,
    any_value(waived_by) AS waived_by, any_value(waived_because) AS waived_because
  FROM {ALL_EVENTS} LEFT JOIN reach USING (topic, partition)
  WHERE kind IN ('opened', 'shrunk', 'filled', 'waived') AND (NOT $is_pinned OR "offset" < reach.next)
  AND ($exchange IS NULL OR exchange = $exchange) AND ($symbol IS NULL OR symbol = $symbol) AND ($data_type IS NULL OR data_type = $data_type)
  GROUP BY exchange, symbol, data_type, first_sequence, last_sequence, gap_id
)
SELECT {", ".join(f'"{name}"' for name in GAPS.names)} FROM folded
WHERE ($start IS NULL OR greatest("after", "before") >= $start) AND ($stop IS NULL OR least("after", "before") < $stop)
AND ($states IS NULL OR list_contains($states, state)) AND ($cause IS NULL OR cause = $cause) AND ($id IS NULL OR starts_with(gap_id, $id))
ORDER BY "before", exchange, symbol, first_sequence, gap_id
"""

HISTORY = f"""
SELECT {", ".join(f'"{name}"' for name in WRITTEN.names)} FROM {ALL_EVENTS}
WHERE list_contains($ids, coalesce(gap_id, first_sequence || '-' || last_sequence)) AND kind <> 'reset'
ORDER BY exchange, symbol, topic, partition, "offset", missing DESC, written_at
"""

AROUND = """
WITH stream AS (SELECT * FROM read_parquet($files, hive_partitioning = false) WHERE exchange = $exchange AND symbol = $symbol)
SELECT * EXCLUDE (part) FROM (
  (SELECT 1 AS part, * FROM stream WHERE timestamp <= $after AND source_sequence < $first
    ORDER BY timestamp DESC, source_sequence DESC, "offset" DESC LIMIT $count)
  UNION ALL
  (SELECT 2 AS part, * FROM stream WHERE timestamp BETWEEN $after AND $before AND source_sequence BETWEEN $first AND $last
    ORDER BY source_sequence, "offset" LIMIT $inside)
  UNION ALL
  (SELECT 3 AS part, * FROM stream WHERE timestamp >= $before AND source_sequence > $last
    ORDER BY timestamp, source_sequence, "offset" LIMIT $count)
) ORDER BY part, timestamp, source_sequence, "offset"
"""

INSIDE = 20
"""So many of the rows that came late into a hole are shown."""


@dataclass(frozen=True, slots=True)
class GapFilter:
    """Which gaps: None asks for any; the hole overlaps `[start, end)` in event time, both aware."""

    exchange: str | None = None
    symbol: str | None = None
    data_type: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    states: Sequence[State] | None = None
    cause: str | None = None
    id: str | None = None
    """The id's beginning is enough."""


def gaps_now(engine: Engine, files: Sequence[TableFile], wanted: GapFilter | None = None, *, reach: Vector | None = None) -> pa.Table:
    """One row a gap, as GAPS, in the order of event time; `files` are those of the gaps table. Raises QueryError.

    With `reach`, the vector of a snapshot of the rows, gaps are as the rows below it made them, whatever came since.
    """
    wanted = wanted or GapFilter()
    if not files:
        return GAPS.empty_table()
    values = {
        "exchange": wanted.exchange,
        "symbol": wanted.symbol,
        "data_type": wanted.data_type,
        "start": wanted.start,
        "stop": wanted.end,
        "states": None if wanted.states is None else [str(state) for state in wanted.states],
        "cause": wanted.cause,
        "id": wanted.id,
        "is_pinned": reach is not None,
    }
    tables = {"no_events": WRITTEN.empty_table(), "reach": _reach_of(reach or {})}
    return engine.ask(FOLD, files=files, values=values, tables=tables).cast(GAPS)


def _reach_of(vector: Vector) -> pa.Table:
    columns = ([tp.topic for tp in vector], [tp.partition for tp in vector], [entry.next for entry in vector.values()])
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, REACH, strict=True)], schema=REACH)


def history(engine: Engine, files: Sequence[TableFile], *ids: str) -> pa.Table:
    """All events of these gaps, as EVENTS and written_at; a waiver stands beside the event that opened. Raises QueryError."""
    if not files:
        return WRITTEN.empty_table()
    return engine.ask(HISTORY, files=files, values={"ids": list(ids)}, tables={"no_events": WRITTEN.empty_table()}).cast(WRITTEN)


def rows_around(engine: Engine, files: Sequence[TableFile], gap: dict[str, object], *, count: int = 3) -> pa.Table:
    """Rows on both sides of a hole, `count` each, and between them those that came late into it, in order.

    `gap` is a row of GAPS, `files` are those of its data type's table. Late ones are known by number and event time. Raises QueryError.
    """
    worth = files_for(files, symbol=str(gap["symbol"]), exchange=str(gap["exchange"]))
    if not worth:
        return pa.table({})
    names = {"exchange": "exchange", "symbol": "symbol", "first": "first_sequence", "last": "last_sequence", "after": "after", "before": "before"}
    values = {name: gap[column] for name, column in names.items()}
    return engine.ask(AROUND, files=worth, values={**values, "count": count, "inside": INSIDE})


def age_seconds(gap: dict[str, object], now_us: int) -> float:
    """How long it has been known."""
    opened_at = gap["opened_at"]
    return max(0.0, (now_us - micros(opened_at)) / 1e6) if isinstance(opened_at, datetime) else 0.0
