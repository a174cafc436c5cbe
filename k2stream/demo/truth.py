"""What a demo must leave behind, computed apart from the pipeline."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from k2stream.feed.asx import COMPANIES
from k2stream.feed.faults import Injected
from k2stream.feed.recording import Recording, shipped

BINANCE_FRAMES = "binance/btcusdt_trade_frames_2021-01-08.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Truth:
    """What the tables must hold after a demo."""

    rows: int
    turnover: Mapping[str, Decimal]
    """Sum of price * quantity by exchange, exact."""
    repeated_lines: int | None
    """Rows that repeat an earlier row of their CSV file byte for byte and are trades all the same; None: not counted here."""
    injected: Injected | None
    """None: without faults."""


def truth_of_files() -> Truth:
    """Of all recorded trades, straight from the shipped files with Python's csv, json and Decimal."""
    turnover = {"ASX": Decimal(), "BINANCE": Decimal()}
    rows = repeated = 0
    for company in COMPANIES.values():
        lines = shipped(f"asx/trades/{company}.csv.gz").decode().splitlines()
        repeated += len(lines) - len(set(lines))
        for _, _, price, quantity, *_ in csv.reader(lines):
            turnover["ASX"] += Decimal(price) * Decimal(quantity)
            rows += 1
    for frame in io.BytesIO(shipped(BINANCE_FRAMES)):
        trade = orjson.loads(frame)["data"]
        turnover["BINANCE"] += Decimal(trade["p"]) * Decimal(trade["q"])
        rows += 1
    return Truth(rows, turnover, repeated, None)


def truth_of_recordings(recordings: Sequence[Recording], injected: Injected | None = None) -> Truth:
    """Of a part of the recording, or of one with faults: its rows but those that were spoiled."""
    spoiled = pa.array(injected.spoiled if injected else (), pa.string())
    kept = [r.rows.filter(pc.invert(pc.is_in(_plain(r.rows["trade_id"]), value_set=spoiled))) for r in recordings]
    turnover = {r.exchange.upper(): _turnover(rows) for r, rows in zip(recordings, kept, strict=True) if rows.num_rows}
    return Truth(sum(rows.num_rows for rows in kept), turnover, None, injected)


def _turnover(rows: pa.Table) -> Decimal:
    total: Decimal = pc.sum(pc.multiply(rows["price"], rows["quantity"])).as_py()
    return total


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())
