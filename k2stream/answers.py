"""Questions put to the trades at one snapshot, and the receipt that their answer rests on: what `k2 query` and `k2 api` say alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from k2stream.errors import QueryError
from k2stream.lake.head import Head
from k2stream.lake.reader import TableReader
from k2stream.query.completeness import Ledger, completeness, marked_bars
from k2stream.query.engine import Engine
from k2stream.query.questions import daily_bars, files_for, trades
from k2stream.query.receipt import Receipt
from k2stream.table_file import TableFile


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and what they rest on."""

    rows: pa.Table
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trades: None asks for any; `start <= timestamp < end`, both aware."""

    symbol: str | None = None
    exchange: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    limit: int = 20
    """The newest so many."""
    snapshot_id: int | None = None
    """That of an earlier receipt, for the same rows again; None: the newest."""


def newest_trades(reader: TableReader, engine: Engine, wanted: Wanted) -> Answer:
    """Trades, newest first, as k2stream.rows.TRADES. Raises QueryError, and LakeError if the snapshot is gone or the table cannot be read."""
    head, files = _pinned(reader, wanted)
    rows = trades(engine, files, symbol=wanted.symbol, exchange=wanted.exchange, start=wanted.start, end=wanted.end, limit=wanted.limit)
    return Answer(rows, receipt_of(reader, head, files))


def bars_by_day(reader: TableReader, engine: Engine, wanted: Wanted) -> Answer:
    """Daily bars of the symbols wanted, as k2stream.query.completeness.MARKED_BARS; raises as newest_trades does.

    Times and limit do not apply: a bar is of a whole day. What is missing of it is told as the rows of this snapshot made it.
    """
    if wanted.start is not None or wanted.end is not None:
        raise QueryError("Daily bars are of whole days (UTC); expected no start and no end.")
    head, files = _pinned(reader, wanted)
    bars = daily_bars(engine, files, symbol=wanted.symbol, exchange=wanted.exchange)
    ledger = Ledger(files, reader.beside("gaps").newest_files(), reach=head.vector)
    rows = marked_bars(engine, bars, completeness(engine, ledger, symbol=wanted.symbol, exchange=wanted.exchange))
    return Answer(rows, receipt_of(reader, head, files))


def _pinned(reader: TableReader, wanted: Wanted) -> tuple[Head, list[TableFile]]:
    head = reader.head() if wanted.snapshot_id is None else reader.head_at(wanted.snapshot_id)
    if head.snapshot_id is None:
        return head, []
    return head, list(files_for(reader.files(head.snapshot_id), symbol=wanted.symbol, exchange=wanted.exchange, start=wanted.start, end=wanted.end))


def receipt_of(reader: TableReader, head: Head, files: Sequence[TableFile]) -> Receipt:
    """What an answer from these files of a pinned head rests on."""
    return Receipt.of(".".join(reader.name), snapshot_id=head.snapshot_id, vector=head.vector, watermark_us=head.watermark_us, files=len(files))
