"""Questions put to the trades at one snapshot, and the receipt that their answer rests on: what `k2 query` and `k2 api` say alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa

from k2stream.errors import QueryError
from k2stream.lake.head import Head
from k2stream.lake.reader import TableReader
from k2stream.query.completeness import Ledger, completeness, marked_bars
from k2stream.query.engine import Engine
from k2stream.query.names import exchange_in, unknown_symbol
from k2stream.query.questions import daily_bars, files_for, trades
from k2stream.query.receipt import Receipt
from k2stream.table_file import TableFile


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and what they rest on."""

    rows: pa.Table
    receipt: Receipt
    note: str = ""
    """A sentence, if the question names an exchange or a symbol that no row has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trades: None asks for any; `start <= timestamp < end`, both aware."""

    symbol: str | None = None
    exchange: str | None = None
    """In any case."""
    start: datetime | None = None
    end: datetime | None = None
    limit: int = 20
    """The newest so many."""
    snapshot_id: int | None = None
    """That of an earlier receipt, for the same rows again; None: the newest."""


def newest_trades(reader: TableReader, engine: Engine, wanted: Wanted) -> Answer:
    """Trades, newest first, as k2stream.rows.TRADES. Raises QueryError, and LakeError if the snapshot is gone or the table cannot be read."""
    pinned = Pinned.of(reader, engine, wanted)
    exact = pinned.wanted
    rows = trades(engine, pinned.files, symbol=exact.symbol, exchange=exact.exchange, start=exact.start, end=exact.end, limit=exact.limit)
    return pinned.answer(rows)


def bars_by_day(reader: TableReader, engine: Engine, wanted: Wanted) -> Answer:
    """Daily bars of the symbols wanted, as k2stream.query.completeness.MARKED_BARS; raises as newest_trades does.

    Times and limit do not apply: a bar is of a whole day. What is missing of it is told as the rows of this snapshot made it.
    """
    if wanted.start is not None or wanted.end is not None:
        raise QueryError("Daily bars are of whole days (UTC); expected no start and no end.")
    pinned = Pinned.of(reader, engine, wanted)
    symbol, exchange = pinned.wanted.symbol, pinned.wanted.exchange
    bars = daily_bars(engine, pinned.files, symbol=symbol, exchange=exchange)
    ledger = Ledger(pinned.files, reader.beside("gaps").newest_files(), reach=pinned.head.vector)
    return pinned.answer(marked_bars(engine, bars, completeness(engine, ledger, symbol=symbol, exchange=exchange)))


@dataclass(frozen=True, slots=True)
class Pinned:
    """A question at one snapshot, with the names that its rows have."""

    reader: TableReader
    engine: Engine
    wanted: Wanted
    note: str
    head: Head
    all_files: Sequence[TableFile]
    files: Sequence[TableFile]
    """Those that may hold an answer."""

    @classmethod
    def of(cls, reader: TableReader, engine: Engine, wanted: Wanted) -> "Pinned":
        """At the snapshot wanted, else the newest. Raises QueryError, LakeError."""
        head = reader.head() if wanted.snapshot_id is None else reader.head_at(wanted.snapshot_id)
        files = [] if head.snapshot_id is None else reader.files(head.snapshot_id)
        asked = exchange_in(engine, files, wanted.exchange)
        exact = replace(wanted, exchange=asked.exchange)
        worth = files_for(files, symbol=exact.symbol, exchange=exact.exchange, start=exact.start, end=exact.end)
        return cls(reader, engine, exact, asked.note, head, files, worth)

    def answer(self, rows: pa.Table) -> Answer:
        """`rows` with their receipt; of no rows it is said whether there can be any."""
        note = self.note
        if not note and not rows.num_rows:
            note = unknown_symbol(self.engine, self.all_files, self.wanted.symbol, self.wanted.exchange)
        return Answer(rows, receipt_of(self.reader, self.head, self.files), note)


def receipt_of(reader: TableReader, head: Head, files: Sequence[TableFile]) -> Receipt:
    """What an answer from these files of a pinned head rests on."""
    return Receipt.of(".".join(reader.name), snapshot_id=head.snapshot_id, vector=head.vector, watermark_us=head.watermark_us, files=len(files))
