"""Instruments by exchange and symbol, on every worker: what a trade's symbol means."""

from typing import Any

import faust
from faust.types import TableT


def instruments_table(app: faust.App) -> TableT[str, dict[str, Any]]:
    """`EXCHANGE/SYMBOL` -> the row of market_data.instruments, as JSON; one changelog partition that every worker reads.

    Faust warns of global tables that are recovered for ever; one partition and no buffer is its own advice against it.
    """
    return app.GlobalTable(
        "instruments", default=dict, partitions=1, recovery_buffer_size=1, use_partitioner=True, help="Instruments by exchange and symbol"
    )
