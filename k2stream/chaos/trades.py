"""Trades made up for a chaos run: a seeded stream with every fault that a feed has, and what each record of it is. Pure."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa

from k2stream.feed.avro import encode
from k2stream.feed.publisher import RECONNECT, SESSION_START, FeedMarker, partition_of
from k2stream.feed.spoiled import SPOILS
from k2stream.rows import body_schema
from k2stream.transport.sink import Outgoing

SCHEMA = "trade_v2"

PREFIX_CHARACTERS, INDEX_DIGITS = 24, 12
"""A message id is the run's prefix and the row's index, as long as a UUID, so that it lies at a fixed place of the record."""
ID_AT = 6
"""Behind the frame (5 bytes) and the id's length (1)."""

HOUR_US = 3_600_000_000
DAYS_AGO = 10
"""Event times lie so far back that a worker's clock may jump without making a good trade one of the future."""

AGAIN_FROM = 5_000
"""How many of the newest rows may be published once more."""
RANGE_ROWS = 60
SKIPS = (1, 3, 25)

SHARES = {
    "again": 0.02,
    "second_feed": 0.01,
    "range": 0.0002,
    "gap": 0.004,
    "late": 0.004,
    "null": 0.002,
    "spoiled": 0.004,
    "reconnect": 0.001,
    "session": 0.0004,
    "silence": 0.0002,
}
"""How often which trouble comes instead of a plain row."""
TROUBLES, WEIGHTS = (*SHARES, "none"), (*SHARES.values(), 1 - sum(SHARES.values()))

Row = dict[str, Any]
"""Columns of the contract."""


@dataclass(slots=True)
class Symbol:
    """One symbol's sequence, session and time."""

    name: str
    next: int = 1
    session: int = 0
    shift_us: int = 0
    late: list[int] = field(default_factory=list)
    """Indexes of rows that go out after the next one."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a reference needs of a row apart from the row itself."""

    symbol: str
    trade: int
    """Two rows of one trade are the reports of two feeds: the second is a duplicate."""
    sequence: int | None
    time_us: int


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A record that must become a dead letter."""

    kind: str
    row: Row


@dataclass(frozen=True, slots=True)
class Again:
    """Records published once more, byte for byte."""

    records: tuple[tuple[bytes, bytes], ...]
    """Key and value."""


Step = int | Spoiled | Again | FeedMarker
"""What is published next; a number is a row's index."""


class TradeMaker:
    """Makes records and remembers what each is. One thread makes, any may look.

    `known[i]`, and row i of what `table` gives, belong to the records whose message id ends in i.
    """

    def __init__(self, exchange: str, *, prefix: str, partitions: int, schema_id: int, seed: int, now_us: int) -> None:
        """`prefix`: up to 24 characters of this run's own. Every partition gets two symbols."""
        self._exchange, self._schema_id = exchange, schema_id
        self._prefix = prefix.ljust(PREFIX_CHARACTERS, "-")[:PREFIX_CHARACTERS]
        self._random = Random(seed)  # noqa: S311 # a run must be repeatable
        self._start_us = now_us - DAYS_AGO * 24 * HOUR_US
        self.symbols = [Symbol(name) for name in names_on(partitions)]
        self.known: list[Known] = []
        self.spoiled: set[bytes] = set()
        """Values that must become dead letters."""
        self._tables: list[pa.Table] = []
        self._held: dict[int, bytes] = {}
        self._recent: deque[tuple[int, bytes, bytes]] = deque(maxlen=AGAIN_FROM)
        """Index, key and value of what was published lately."""
        self._trades = 0

    def table(self) -> pa.Table:
        """Every row made so far, by index."""
        return pa.concat_tables(self._tables) if self._tables else body_schema(SCHEMA).empty_table()

    def index_of(self, value: bytes) -> int | None:
        """Which row a record's value is; None if it is none of this run's, or spoiled."""
        if value in self.spoiled or value[ID_AT : ID_AT + PREFIX_CHARACTERS] != self._prefix.encode():
            return None
        return int(value[ID_AT + PREFIX_CHARACTERS : ID_AT + PREFIX_CHARACTERS + INDEX_DIGITS])

    def take(self, count: int, now_ms: int) -> list[Outgoing]:
        """Records of some `count` steps in the order of publication; `now_ms` becomes their time."""
        rows: list[Row] = []
        steps = [step for _ in range(count) for step in self._steps(self._random.choice(self.symbols), rows)]
        first = len(self.known) - len(rows)
        self._held.update(enumerate(self._encode(rows), first))
        return [record for step in steps for record in self._records(step, now_ms)]

    def _encode(self, rows: Sequence[Row]) -> list[bytes]:
        if not rows:
            return []
        table = pa.Table.from_pylist(list(rows), schema=body_schema(SCHEMA))
        values: list[bytes] = encode(table, schema=SCHEMA, schema_id=self._schema_id).to_pylist()
        self._tables.append(table)
        return values

    def _records(self, step: Step, now_ms: int) -> Iterator[Outgoing]:
        match step:
            case FeedMarker():
                yield step.record(now_ms)
            case Spoiled():
                value = SPOILS[step.kind].bytes_of(step.row, schema_id=self._schema_id)
                self.spoiled.add(value)
                yield Outgoing(step.row["symbol"].encode(), value, now_ms)
            case Again():
                yield from (Outgoing(key, value, now_ms) for key, value in step.records)
            case int():
                key, value = self.known[step].symbol.encode(), self._held.pop(step)
                self._recent.append((step, key, value))
                yield Outgoing(key, value, now_ms)

    def _steps(self, symbol: Symbol, rows: list[Row]) -> Iterator[Step]:
        """One trouble or a plain row of a symbol; what it held back follows."""
        released, symbol.late = symbol.late, []
        trouble = self._random.choices(TROUBLES, WEIGHTS)[0]
        yield from self._trouble(trouble, symbol, rows)
        yield from released

    def _trouble(self, trouble: str, symbol: Symbol, rows: list[Row]) -> Iterator[Step]:
        match trouble:
            case "again" | "range" if self._recent:
                recent = list(self._recent)
                at = self._random.randrange(len(recent))
                some = recent[at : at + (RANGE_ROWS if trouble == "range" else 1)]
                yield Again(tuple((key, value) for _, key, value in some))
            case "second_feed" if self._recent:
                first = self.known[self._random.choice(self._recent)[0]]
                yield self._row(rows, first.symbol, first.trade, first.sequence, first.time_us)
            case "spoiled":
                yield Spoiled(self._random.choice(list(SPOILS)), self._fields(len(self.known), symbol.name, *self._next(symbol)))
            case "late":
                symbol.late.append(self._row(rows, symbol.name, *self._next(symbol)))
            case "null":
                trade, _, time_us = self._next(symbol)
                yield self._row(rows, symbol.name, trade, None, time_us)
            case _:
                yield from self._before(trouble, symbol)
                yield self._row(rows, symbol.name, *self._next(symbol))

    def _before(self, trouble: str, symbol: Symbol) -> Iterator[Step]:
        """What happens to a symbol's numbers before its next row."""
        match trouble:
            case "gap" | "reconnect":
                symbol.next += self._random.choice(SKIPS)
                if trouble == "reconnect":
                    yield FeedMarker(symbol.name, RECONNECT, self._session(symbol), self._time_us(symbol))
            case "session":
                symbol.session += 1
                symbol.next = 1
                yield FeedMarker(symbol.name, SESSION_START, self._session(symbol), self._time_us(symbol))
            case "silence":  # an hour passes, and its numbers begin anew without a word
                symbol.shift_us += 2 * HOUR_US
                symbol.next = 1

    def _session(self, symbol: Symbol) -> str:
        return f"{symbol.session:06d}"

    def _time_us(self, symbol: Symbol) -> int:
        return self._start_us + symbol.shift_us + self._trades * 1000

    def _next(self, symbol: Symbol) -> tuple[int, int, int]:
        """Trade number, sequence and event time of a symbol's next trade."""
        self._trades += 1
        symbol.next += 1
        return self._trades, symbol.next - 1, self._time_us(symbol)

    def _row(self, rows: list[Row], symbol: str, trade: int, sequence: int | None, time_us: int) -> int:
        index = len(self.known)
        rows.append(self._fields(index, symbol, trade, sequence, time_us))
        self.known.append(Known(symbol, trade, sequence, time_us))
        return index

    def _fields(self, index: int, symbol: str, trade: int, sequence: int | None, time_us: int) -> Row:
        return {
            "message_id": f"{self._prefix}{index:0{INDEX_DIGITS}d}",
            "trade_id": f"{self._exchange}-{trade}",
            "symbol": symbol,
            "exchange": self._exchange,
            "asset_class": "crypto",
            "timestamp": time_us,
            "price": Decimal(10_000 + index % 997).scaleb(-2),
            "quantity": Decimal(1 + index % 89).scaleb(-3),
            "currency": "USDT",
            "side": ("BUY", "SELL")[index % 2],
            "trade_conditions": ["chaos"] if index % 3 else [],
            "source_sequence": sequence,
            "ingestion_timestamp": time_us + 1000,
            "platform_sequence": None,
            "vendor_data": {"n": str(index)} if index % 5 else None,
        }


def names_on(partitions: int, each: int = 2) -> list[str]:
    """Symbols whose keys fall on every partition, `each` on one."""
    places: dict[int, list[str]] = {}
    number = 0
    while len(places) < partitions or min(map(len, places.values())) < each:
        name = f"C{number}USDT"
        places.setdefault(partition_of(name.encode(), partitions), []).append(name)
        number += 1
    return sorted(name for names in places.values() for name in names[:each])
