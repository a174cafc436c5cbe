"""Trades a second from the shipped recordings into the embedded log: reading, encoding, batching and appending, on one core.

    python tests/bench/publisher.py
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from k2stream.feed import recorded
from k2stream.feed.recording import MessageIds
from k2stream.transport.embedded_sink import EmbeddedSink

BAR = 25_000


async def publish(folder: Path) -> tuple[int, float, float]:
    """Trades, wall seconds and CPU seconds of one run into a new log."""
    sink = EmbeddedSink(folder)
    started, cpu = time.perf_counter(), time.process_time()
    recordings = recorded.trades(ids=MessageIds(uuid4()), now_us=time.time_ns() // 1000)
    for recording in recordings:
        await sink.create_topic(recording.topic, 8, {})
    published = await recorded.play(
        sink, [recorded.script(r) for r in recordings], schema="trade_v2", schema_ids={r.topic: 1 for r in recordings}
    )
    await sink.close()
    return sum(p.records for p in published), time.perf_counter() - started, time.process_time() - cpu


def main() -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        trades, seconds, cpu = asyncio.run(publish(Path(folder)))
    rate = trades / seconds
    print(f"{trades:,} trades in {seconds:.2f} s: {rate:,.0f}/s on one core, {cpu / trades * 1e6:.1f} us CPU each (bar {BAR:,}/s)")
    return 0 if rate >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
