"""How many rows of which symbol got which flag, since the worker started."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SYMBOLS = 1_000
"""Symbols counted each for itself; what comes of others is counted together, so that no feed fills the memory."""
SHOWN = 20
OTHERS = "others"


class Tally:
    """One user at a time, but for `as_json`."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, flags: pa.Table) -> Counter[str]:
        """Count a window's k2stream.quality.flags.FLAGS; how many there are of each."""
        whole: Counter[str] = Counter()
        if not flags.num_rows:
            return whole
        places = pc.list_parent_indices(flags["flags"].combine_chunks())
        single = pa.table({"symbol": flags["symbol"].take(places), "flag": pc.list_flatten(flags["flags"])})
        for row in single.group_by(["symbol", "flag"]).aggregate([([], "count_all")]).to_pylist():
            symbol = row["symbol"] if row["symbol"] in self._counts or len(self._counts) < SYMBOLS else OTHERS
            self._counts.setdefault(symbol, Counter())[row["flag"]] += row["count_all"]
            whole[row["flag"]] += row["count_all"]
        return whole

    def as_json(self) -> dict[str, Any]:  # JSON of /state
        """Sums by flag, and the symbols with the most flags."""
        counts = {symbol: dict(found) for symbol, found in list(self._counts.items())}
        worst = sorted(counts, key=lambda symbol: (-sum(counts[symbol].values()), symbol))[:SHOWN]
        total: Counter[str] = Counter()
        for found in counts.values():
            total.update(found)
        return {"flags": dict(total), "symbols": {symbol: counts[symbol] for symbol in worst}}
