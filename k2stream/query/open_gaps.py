"""Which gaps are open, and which of their numbers the table holds none of."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from k2stream.number_spans import Span, of_numbers, without
from k2stream.query.engine import Engine
from k2stream.query.gaps import OWING, GapFilter, gaps_now
from k2stream.query.questions import files_for
from k2stream.table_file import TableFile

HELD = """
SELECT DISTINCT source_sequence AS number
FROM read_parquet($files, hive_partitioning = false)
WHERE exchange = $exchange AND symbol = $symbol AND source_sequence BETWEEN $first AND $last
ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap as it was opened, and what is missing of it still."""

    exchange: str
    symbol: str
    data_type: str
    first: int
    last: int
    missing: int
    cause: str
    previous_us: int
    """Event time of the row before it, microseconds since the epoch."""
    next_us: int
    """... and of the row that opened it."""


def open_gaps(engine: Engine, files: Sequence[TableFile], *, exchange: str | None = None, data_type: str | None = None) -> list[OpenGap]:
    """Gaps of which something is missing that nobody accepted, in order of their time, as the ledger says; `files` are those of the gaps table."""
    found = gaps_now(engine, files, GapFilter(exchange, data_type=data_type, states=OWING))
    times = [found[name].cast(pa.int64()).to_pylist() for name in ("after", "before")]
    words = found.select(["exchange", "symbol", "data_type", "first_sequence", "last_sequence", "missing", "cause"]).to_pylist()
    return [
        OpenGap(w["exchange"], w["symbol"], w["data_type"], w["first_sequence"], w["last_sequence"], w["missing"], w["cause"], before or after, after)
        for w, before, after in zip(words, *times, strict=True)
        if w["cause"] is not None  # the event that opened it is not in the table yet
    ]


def missing_numbers(engine: Engine, files: Sequence[TableFile], gap: OpenGap) -> list[Span]:
    """The numbers of the gap that no row has; `files` are those of its data type's table."""
    worth = files_for(files, symbol=gap.symbol, exchange=gap.exchange)
    if not worth:
        return [(gap.first, gap.last)]
    held = engine.ask(HELD, files=worth, values={"exchange": gap.exchange, "symbol": gap.symbol, "first": gap.first, "last": gap.last})
    return without([(gap.first, gap.last)], of_numbers(held["number"].to_pylist()))
