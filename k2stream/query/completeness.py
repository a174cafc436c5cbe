"""How complete the rows of a symbol are, interval by interval: what its feed numbered, what came, what is missing, late or double.

Per symbol and interval of event time:
    received     rows in the table
    untracked    ... of them without a sequence number
    missing      numbers that are missing now; a hole counts where the row behind it stands
    waived       the same of gaps that a person accepted
    expected     received + missing + waived; null where no row has a number, for then nobody knows
    late         rows that came into a hole after it was seen
    duplicates   records whose native id was there already; null of exchanges with redundant topics, whose second reports nobody flags
    is_complete  no hole with missing numbers reaches into the interval; null where no row has a number
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from k2stream.lake.offsets import Vector
from k2stream.query.engine import Engine
from k2stream.query.gaps import ALL_EVENTS, WRITTEN, GapFilter, State, gaps_now
from k2stream.query.questions import BARS, files_for
from k2stream.rows import TIMESTAMP
from k2stream.table_file import TableFile

DAY_SECONDS = 86_400

COMPLETENESS = pa.schema(
    [
        ("start", TIMESTAMP),
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        *((name, pa.int64()) for name in ("expected", "received", "missing", "late", "duplicates", "waived", "untracked")),
        ("is_complete", pa.bool_()),
    ]
)

# A hole from one row to the next lies in every interval between them, those without any row too. The row behind it may be the
# earlier one, for venues number trades and time them in different places; and the first row of a stream has none before it.
COMPLETE = """
WITH held AS (
  SELECT epoch_us(timestamp) // $width AS place, exchange, symbol, count(*) AS received, count(*) FILTER (source_sequence IS NULL) AS untracked
  FROM read_parquet($files, hive_partitioning = false)
  WHERE ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
  AND ($start IS NULL OR timestamp >= $start) AND ($stop IS NULL OR timestamp < $stop)
  GROUP BY ALL
),
sides AS (
  SELECT least(coalesce("after", "before"), "before") AS low, greatest("after", "before") AS high, "before", exchange, symbol, state, missing FROM gaps
),
holes AS (
  SELECT unnest(generate_series(
      epoch_us(greatest(low, $start)) // $width, (epoch_us(least(high, $stop)) - (high >= $stop IS TRUE)::INT) // $width
    )) AS place,
    exchange, symbol, epoch_us("before") // $width AS told, state, missing
  FROM sides
),
lost AS (
  SELECT place, exchange, symbol,
    coalesce(sum(missing) FILTER (place = told AND state <> 'waived'), 0)::BIGINT AS missing,
    coalesce(sum(missing) FILTER (place = told AND state = 'waived'), 0)::BIGINT AS waived,
    bool_or(state <> 'waived') AS has_hole
  FROM holes GROUP BY ALL
),
came_late AS (SELECT epoch_us(timestamp) // $width AS place, exchange, symbol, count(*) AS late FROM filling GROUP BY ALL),
came_twice AS (SELECT epoch_us(timestamp) // $width AS place, exchange, symbol, count(*) AS duplicates FROM doubles GROUP BY ALL),
joined AS (
  SELECT place, exchange, symbol, coalesce(received, 0) AS received, coalesce(untracked, 0) AS untracked, coalesce(missing, 0) AS missing,
    coalesce(waived, 0) AS waived, coalesce(has_hole, false) AS has_hole, coalesce(late, 0) AS late, coalesce(duplicates, 0) AS duplicates
  FROM held FULL JOIN lost USING (place, exchange, symbol) FULL JOIN came_late USING (place, exchange, symbol)
    FULL JOIN came_twice USING (place, exchange, symbol)
)
SELECT make_timestamp(place * $width) AT TIME ZONE 'UTC' AS start, exchange, symbol,
  CASE WHEN received > untracked OR has_hole OR waived > 0 THEN received + missing + waived END AS expected,
  received, missing, late, CASE WHEN NOT list_contains($redundant, exchange) THEN duplicates END AS duplicates, waived, untracked,
  CASE WHEN received > untracked OR has_hole OR waived > 0 THEN NOT has_hole END AS is_complete
FROM joined ORDER BY start, exchange, symbol
"""

PLACES = pa.schema([("timestamp", TIMESTAMP), ("exchange", pa.string()), ("symbol", pa.string())])

FILLING = f"""
SELECT timestamp, exchange, symbol FROM {ALL_EVENTS}
WHERE kind IN ('shrunk', 'filled') AND data_type = $data_type
AND ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
AND ($start IS NULL OR timestamp >= $start) AND ($stop IS NULL OR timestamp < $stop)
"""

DOUBLES = """
SELECT timestamp, exchange, symbol FROM read_parquet($files, hive_partitioning = false)
WHERE list_contains(flags, 'duplicate') AND data_type = $data_type
AND ($symbol IS NULL OR symbol = $symbol) AND ($exchange IS NULL OR exchange = $exchange)
AND ($start IS NULL OR timestamp >= $start) AND ($stop IS NULL OR timestamp < $stop)
"""

MARKED = """
SELECT bars.*, coalesce(c.missing, 0) AS missing, c.is_complete
FROM bars LEFT JOIN complete c ON bars.day = CAST(c.start AS DATE) AND bars.exchange = c.exchange AND bars.symbol = c.symbol
ORDER BY bars.day, bars.exchange, bars.symbol
"""

MARKED_BARS = pa.schema([*BARS, ("missing", pa.int64()), ("is_complete", pa.bool_())])


@dataclass(frozen=True, slots=True)
class Ledger:
    """Files of one data type's table and of those beside it, and the vector up to which gaps count."""

    rows: Sequence[TableFile]
    gaps: Sequence[TableFile]
    quality: Sequence[TableFile] = ()
    """Duplicates stand there; without it they are 0."""
    redundant: Collection[str] = ()
    """Exchanges with redundant topics."""
    reach: Vector | None = None
    data_type: str = "trades"


def completeness(
    engine: Engine,
    ledger: Ledger,
    *,
    interval_seconds: int = DAY_SECONDS,
    symbol: str | None = None,
    exchange: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """As COMPLETENESS, of intervals in which something came or should have come, within `[start, end)`; raises QueryError."""
    files = files_for(ledger.rows, symbol=symbol, exchange=exchange, start=start, end=end)
    asked = {"symbol": symbol, "exchange": exchange, "start": start, "stop": end}
    if not ledger.rows:
        return COMPLETENESS.empty_table()
    states = (State.OPEN, State.SHRUNK, State.WAIVED)
    wanted = GapFilter(exchange, symbol, ledger.data_type, start, end, states)
    beside = {"data_type": ledger.data_type, **asked}
    tables = {
        "gaps": gaps_now(engine, ledger.gaps, wanted, reach=ledger.reach),
        "filling": _places(engine, FILLING, ledger.gaps, beside, {"no_events": WRITTEN.empty_table()}),
        "doubles": _places(engine, DOUBLES, ledger.quality, beside, {}),
    }
    values = {**asked, "width": interval_seconds * 1_000_000, "redundant": [*ledger.redundant]}
    # Where no file can hold a row of the range, holes may still reach into it: any one file will do, its rows are left out.
    return engine.ask(COMPLETE, files=files or ledger.rows[:1], values=values, tables=tables).cast(COMPLETENESS)


def marked_bars(engine: Engine, bars: pa.Table, complete: pa.Table) -> pa.Table:
    """Daily bars with what is missing of their day, as MARKED_BARS; `complete` is of days and of the same rows."""
    return engine.ask(MARKED, tables={"bars": bars, "complete": complete}).cast(MARKED_BARS)


def _places(engine: Engine, sql: str, files: Sequence[TableFile], values: Mapping[str, object], tables: Mapping[str, pa.Table]) -> pa.Table:
    return engine.ask(sql, files=files, values=values, tables=tables).cast(PLACES) if files else PLACES.empty_table()
