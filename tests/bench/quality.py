"""CPU a row of the quality checks, on windows as the pipeline hands them on; the bar is 0.3 us.

    python -m tests.bench.quality [--rows 250000] [--windows 8]
"""

import argparse
import sys
import time

import numpy as np
import pyarrow as pa

from k2stream.quality.checks import Checks, Thresholds
from tests.bench.market import made_trades

BAR_US = 0.3
CODED = ("exchange", "symbol", "topic")


def main(arguments: list[str] | None = None) -> int:
    """Best window of several; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--windows", type=int, default=8)
    options = parser.parse_args(arguments)
    trades = made_trades(0, options.rows)
    number = np.arange(options.rows)
    trades = trades.append_column("topic", pa.array(["market.crypto.trades.binance"] * options.rows))
    trades = trades.append_column("partition", pa.array(np.zeros(options.rows, np.int32))).append_column("offset", pa.array(number))
    for name in CODED:
        trades = trades.set_column(trades.schema.get_field_index(name), name, trades[name].dictionary_encode())
    checks, best, flagged = Checks("trades", Thresholds(10, 8, 100, 900_000_000)), float("inf"), 0
    for _ in range(options.windows):
        started = time.thread_time()
        flagged = checks.flag(trades).num_rows
        best = min(best, time.thread_time() - started)
    cost_us = best / options.rows * 1e6
    print(f"{cost_us:.3f} us of CPU a row (bar {BAR_US}), {flagged:,} of {options.rows:,} rows flagged")
    return 1 if cost_us > BAR_US else 0


if __name__ == "__main__":
    sys.exit(main())
