"""What does step 1 of a window cost? CPU microseconds a row of `RowsLake.write`; the bar is 2.0.

    python -m tests.bench.write_speed [--rows 250000] [--profile]

Rows have the shape of decoded 256-byte trades: 400 symbols of two venues, unique ids, vendor data, times that rise but
for small swaps. The best of five windows counts: the others measure the machine. Files are synced only with --fsync.
"""

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
import uuid
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa

from k2stream.clock import Deadline
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Counts
from k2stream.lake.table import RowsLake
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from k2stream.rows import TIMESTAMP, TRADES
from k2stream.settings import Settings
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES as TRADES_TABLE

TOPIC = "market.crypto.trades.binance"
BAR = 2.0
WINDOWS = 5
PARTITIONS = 8


def decoded_rows(size: int, *, are_texts_coded: bool) -> pa.Table:
    """A window's rows in the order (partition, offset), as a decoder gives them."""
    random = np.random.default_rng(1)
    symbols = [f"SYM{i:04}USDT" for i in range(400)]
    codes = random.integers(0, 400, size)
    times = 1_700_000_000_000_000 + np.cumsum(random.integers(1, 20_000, size)) + random.integers(0, 100_000, size)
    zeros = np.zeros(size, dtype=np.int64)
    columns = {
        "message_id": pa.array([str(uuid.UUID(int=int(a) << 64 | int(b))) for a, b in zip(*random.integers(0, 1 << 62, (2, size)), strict=True)]),
        "trade_id": pa.array([f"BINANCE-{3_000_000_000 + i}" for i in range(size)]),
        "symbol": _texts(codes, symbols),
        "exchange": _texts(codes % 2, ["BINANCE", "KRAKEN"]),
        "asset_class": _texts(zeros, ["crypto"]),
        "timestamp": pa.array(times).cast(TIMESTAMP),
        "price": _decimals(10**10 + random.integers(0, 10**6, size) * 10**4),
        "quantity": _decimals(random.integers(1, 10**7, size) * 10**3),
        "currency": _texts(zeros, ["USDT"]),
        "side": _texts(random.integers(0, 2, size), ["BUY", "SELL"]),
        "trade_conditions": pa.ListArray.from_arrays(pa.array(np.zeros(size + 1, np.int32)), pa.array([], pa.string())).cast(
            TRADES.field("trade_conditions").type
        ),
        "source_sequence": pa.array(np.arange(size)),
        "ingestion_timestamp": pa.array(times + 500_000).cast(TIMESTAMP),
        "platform_sequence": pa.nulls(size, pa.int64()),
        "vendor_data": _vendor_data(size),
        "is_sample_data": pa.array(np.zeros(size, dtype=bool)),
        "topic": _texts(zeros, [TOPIC]),
        "partition": pa.array((np.arange(size) * PARTITIONS // size).astype(np.int32)),
        "offset": pa.array(np.arange(size) % (-(-size // PARTITIONS))),
    }
    if are_texts_coded:
        return pa.table(columns)
    return pa.table({name: column.cast(TRADES.field(name).type) for name, column in columns.items()}, schema=TRADES)


def _texts(codes: np.ndarray, texts: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts))


def _decimals(units: np.ndarray) -> pa.Array:
    words = np.zeros((len(units), 2), dtype=np.int64)
    words[:, 0] = units
    return pa.Array.from_buffers(TRADES.field("price").type, len(units), [None, pa.py_buffer(words.tobytes())])


def _vendor_data(size: int) -> pa.Array:
    offsets = pa.array(np.arange(size + 1, dtype=np.int32) * 2)
    whole = pa.MapArray.from_arrays(offsets, pa.array(["is_buyer_maker", "event_type"] * size), pa.array(["true", "trade"] * size))
    return whole.cast(TRADES.field("vendor_data").type)


def us_per_row(lake: RowsLake, rows: pa.Table) -> float:
    """CPU of this process, all threads, best of a few windows."""
    tp = TopicPartition(TOPIC, 0)
    best = float("inf")
    for number in range(WINDOWS):
        window = Window(number, rows, EVENTS.empty_table(), {tp: Counts(rows=rows.num_rows)}, {tp: (0, rows.num_rows)})
        started = time.process_time()
        lake.write(window)
        best = min(best, time.process_time() - started)
    return best / rows.num_rows * 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run, print JSON, return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--fsync", action="store_true", help="sync files as a worker does; costs wall time, no CPU to speak of")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args(arguments)
    coded, plain = (decoded_rows(options.rows, are_texts_coded=coded) for coded in (True, False))
    with tempfile.TemporaryDirectory() as folder:
        lake = RowsLake.open(Settings(home=Path(folder), fsync=options.fsync), TRADES_TABLE, GAPS)
        lake.register({TopicPartition(TOPIC, 0): 0}, Deadline.after(60))
        profile = cProfile.Profile() if options.profile else None
        with profile or nullcontext():
            figures = {"texts_coded_us": us_per_row(lake, coded), "texts_plain_us": us_per_row(lake, plain)}
        size = sum(f.stat().st_size for f in Path(folder).rglob("*.parquet")) / (2 * WINDOWS * options.rows)
        lake.close()
    if profile:
        pstats.Stats(profile).sort_stats("cumtime").print_stats(25)
    is_met = figures["texts_coded_us"] <= BAR
    result = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({**result, "rows": options.rows, "bytes_a_row": round(size, 1), "bar_us": BAR, "verdict": "met" if is_met else "missed"}))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
