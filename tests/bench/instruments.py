"""How long it takes to hold 1,000,000 instruments and to change 10,000 of them: `python -m tests.bench.instruments`.

Through the commit protocol, files synced, without the log and decode. PyIceberg's own upsert took 17.5 minutes for the same table.
Writes build/bench_instruments.json.
"""

import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from k2stream.clock import Deadline
from k2stream.gaps import EVENTS
from k2stream.instruments.merge import CHANGES, IS_END
from k2stream.lake.offsets import Counts
from k2stream.lake.replace import InstrumentsLake
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.instruments import INSTRUMENTS

TP = TopicPartition("market.equities.reference_data.asx", 0)
ROWS, WINDOW_ROWS, UPDATES = 1_000_000, 250_000, 10_000


def changes(companies: np.ndarray, first_offset: int, name: str) -> pa.Table:
    count = len(companies)
    ids = pa.array(companies).cast(pa.string())
    columns: dict[str, pa.Array] = {
        "message_id": ids,
        "company_id": ids,
        "symbol": ids,
        "exchange": pa.repeat("ASX", count),
        "asset_class": pa.repeat("equities", count),
        "company_name": pa.repeat(name, count),
        "is_active": pa.repeat(True, count),
        "ingestion_timestamp": pa.repeat(0, count),
        "is_sample_data": pa.repeat(False, count),
        "topic": pa.repeat(TP.topic, count),
        "partition": pa.repeat(0, count),
        "offset": pa.array(np.arange(first_offset, first_offset + count)),
        IS_END.name: pa.repeat(False, count),
    }
    return pa.table([columns[f.name].cast(f.type) if f.name in columns else pa.nulls(count, f.type) for f in CHANGES], schema=CHANGES)


def put(table: InstrumentsLake, companies: np.ndarray, first: int, name: str) -> float:
    """Seconds of one window."""
    end = first + len(companies)
    window = Window(1, changes(companies, first, name), EVENTS.empty_table(), {TP: Counts(rows=len(companies))}, {TP: (first, end)})
    began = time.perf_counter()
    table.commit(table.write(window), Deadline.after(600))
    return time.perf_counter() - began


def main() -> None:
    with TemporaryDirectory() as home:
        table = InstrumentsLake.open(Settings(home=Path(home)), INSTRUMENTS, GAPS, DEAD_LETTERS)
        assert isinstance(table, InstrumentsLake)
        table.register({TP: 0}, Deadline.after(60))
        load = [put(table, np.arange(at, at + WINDOW_ROWS), at, "old") for at in range(0, ROWS, WINDOW_ROWS)]
        changed = np.random.default_rng(1).choice(ROWS, UPDATES, replace=False)
        many, one = put(table, changed, ROWS, "new"), put(table, changed[:1], ROWS + UPDATES, "newest")
        counts = table.head().vector[TP].counts
        held = sum(f.rows for f in table.files(table.head().snapshot_id or 0))
    assert (held, counts.rows - counts.retired) == (ROWS, ROWS), (held, counts)
    found = {
        "rows": ROWS,
        "load_seconds": round(sum(load), 2),
        "updates": UPDATES,
        "update_seconds": round(many, 2),
        "single_update_seconds": round(one, 3),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_instruments.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
