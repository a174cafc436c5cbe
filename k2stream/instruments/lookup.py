"""Instruments by exchange and symbol: the live table follows the lake's, and rows of symbols that it does not hold are counted.

The lake's table is the truth. Whoever reads a topic of reference data compares its files with the live table after each commit, and
every `HEAL_SECONDS` besides, and writes what differs: an update that a crash, a zombie or a changelog lost comes back by itself.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import structlog

from k2stream import metrics
from k2stream.errors import K2Error
from k2stream.instruments.plain import has_plain_values, plain_values
from k2stream.table_file import TableFile

log = structlog.get_logger(__name__)

Instrument = dict[str, Any]
"""One row of the table of instruments as JSON."""
LiveTable = MutableMapping[str, Instrument]

LOOK_SECONDS = 0.5
HEAL_SECONDS = 30.0
AT_ONCE = 500
"""Entries that are written without letting others have the loop."""
WAIT_SECONDS = 10.0
"""A symbol is called unknown after so long: its reference data may be on its way."""
SYMBOLS = 1_000
"""Unknown symbols that are counted each for itself: a feed of garbage must not fill the memory. What comes after them shares a count."""
OTHERS = "(others)"

LEFT_OUT = ("message_id", "is_sample_data")


@dataclass(frozen=True, slots=True)
class Source:
    """What is followed: a table, as far as it comes from these topics."""

    topics: Callable[[], set[str]]
    """Topics of reference data that this worker reads now."""
    commits: Callable[[], int]
    """Grows with each commit of this worker."""
    files: Callable[[], Sequence[TableFile]]
    """Data files of the head; blocks, raises K2Error."""
    read: Callable[[TableFile], pa.Table]
    """Rows of one with all columns of the table; blocks, raises K2Error."""
    columns: Callable[[], Sequence[str]]
    """Names of the table's columns as last seen: files that were read before lack those that came later."""


class Follower:
    """Keeps a live table as the lake's; one task."""

    def __init__(self, live: LiveTable) -> None:
        self._live = live
        self._rows: dict[str, list[Instrument]] = {}
        """By path of the file; a file never changes."""
        self._columns: Sequence[str] = ()
        """Of these rows."""
        self._seen: tuple[int, set[str]] = (-1, set())
        self._healed_at = -HEAL_SECONDS

    async def look(self, source: Source) -> None:
        """Write what differs, if there was a commit since the last look, or it is time to heal. Trouble is logged: the next look mends it."""
        topics = source.topics()
        seen, now = (source.commits(), topics), time.monotonic()
        if not topics or (seen == self._seen and now - self._healed_at < HEAL_SECONDS):
            return
        try:
            expected = await asyncio.to_thread(self._expected, source, topics)
        except K2Error as exc:
            log.warning("instruments.not_followed", cause=str(exc), then="it is tried again")
            return
        await self._write(expected, topics)
        self._seen, self._healed_at = seen, now

    def _expected(self, source: Source, topics: set[str]) -> dict[str, Instrument]:
        files, columns = source.files(), source.columns()
        known = self._rows if columns == self._columns else {}
        self._rows, self._columns = {f.path: known.get(f.path) or instruments_of(source.read(f)) for f in files}, columns
        return by_symbol(row for rows in self._rows.values() for row in rows if row["topic"] in topics)

    async def _write(self, expected: Mapping[str, Instrument], topics: set[str]) -> None:
        stale = [key for key, row in self._live.items() if row.get("topic") in topics and key not in expected]
        changed = [(key, row) for key, row in expected.items() if key not in self._live or self._live[key] != row]
        for number, key in enumerate(stale):
            del self._live[key]
            await _breathe(number)
        for number, (key, row) in enumerate(changed):
            self._live[key] = row
            await _breathe(number)
        if stale or changed:
            log.info("instruments.followed", written=len(changed), removed=len(stale))


async def _breathe(number: int) -> None:
    if number % AT_ONCE == AT_ONCE - 1:
        await asyncio.sleep(0)


def instruments_of(rows: pa.Table) -> list[Instrument]:
    """Rows of the table of instruments as JSON objects, without columns that JSON is not agreed on (plain.py)."""
    columns = {f.name: plain_values(rows[f.name]) for f in rows.schema if f.name not in LEFT_OUT and has_plain_values(f.type)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def by_symbol(rows: Iterable[Instrument]) -> dict[str, Instrument]:
    """`EXCHANGE/SYMBOL` -> instrument; of several companies that bore a symbol the one listed now, else the one that was heard of last."""
    return {key_of(row["exchange"], row["symbol"]): row for row in sorted(rows, key=lambda row: (is_listed(row), row["offset"]))}


def key_of(exchange: str, symbol: str) -> str:
    """Key of the live table."""
    return f"{exchange.upper()}/{symbol}"


def is_listed(row: Instrument) -> bool:
    """True unless its listing ended, by a record without a value or by the record's own word."""
    return row["delisted_at"] is None and bool(row["is_active"])


@dataclass(slots=True)
class UnknownSymbols:
    """Rows whose symbol has no instrument, by data type, exchange and symbol; a warning, never an error."""

    live: Callable[[], Mapping[str, Instrument]]
    exchanges: Callable[[], set[str]]
    """Exchanges, upper case, that have a topic of reference data: of others nobody said that they would be known."""
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _waiting: dict[tuple[str, str, str], tuple[int, float]] = field(default_factory=dict)

    def committed(self, data_type: str, rows: pa.Table) -> None:
        """Note rows that are in the table now; on the loop's thread."""
        exchanges, live = self.exchanges(), self.live()
        if not exchanges or not rows.num_rows:
            return
        for exchange, symbol, count in _symbols(rows):
            if exchange.upper() in exchanges and key_of(exchange, symbol) not in live:
                key = (data_type, exchange, symbol)
                before, since = self._waiting.get(key, (0, time.monotonic()))
                self._waiting[key] = (before + count, since)

    def tell(self, now: float) -> None:
        """Count what has waited long enough and is unknown still; `now` in monotonic seconds."""
        live = self.live()
        due = [key for key, (_, since) in self._waiting.items() if now - since >= WAIT_SECONDS]
        for key in due:
            rows, _ = self._waiting.pop(key)
            data_type, exchange, symbol = key
            if key_of(exchange, symbol) in live:
                continue
            metrics.UNKNOWN_INSTRUMENTS.labels(data_type).inc(rows)
            if key not in self.counts and len(self.counts) >= SYMBOLS:
                key = (data_type, exchange, OTHERS)
            elif key not in self.counts:
                log.warning("instrument.unknown", data_type=data_type, exchange=exchange, symbol=symbol, then="its rows are kept")
            self.counts[key] += rows

    def as_json(self) -> dict[str, int]:
        """For `/state`."""
        return {f"{data_type} {key_of(exchange, symbol)}": rows for (data_type, exchange, symbol), rows in self.counts.items()}


def _symbols(rows: pa.Table) -> Iterator[tuple[str, str, int]]:
    """Exchange, symbol and count of rows."""
    counted = rows.select(["exchange", "symbol"]).group_by(["exchange", "symbol"]).aggregate([([], "count_all")])
    for row in counted.to_pylist():
        yield row["exchange"], row["symbol"], row["count_all"]
