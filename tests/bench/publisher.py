"""The publisher on one core: how many trades a second into the embedded log, and how soon a steady stream is acknowledged by Kafka.

    python -m tests.bench.publisher                                          the shipped recordings, as fast as it goes, into the embedded log
    python -m tests.bench.publisher --kafka [--rate 25000] [--seconds 60]    trades as they come, on a broker of its own

`--kafka` hands over what is due every 20 ms, as a live feed does: rows to Avro to log batches to the broker and back. A trade's time runs from
then to its log batch's acknowledgement by the broker. This process keeps to one core; the broker has all. Results also go into
build/publisher.md. Exit code 1 if a bar is missed.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pyarrow as pa

from k2stream.dev.kafka import Kafka
from k2stream.feed import recorded
from k2stream.feed.publisher import Publisher, partition_of
from k2stream.feed.recording import MessageIds
from k2stream.settings import load_settings
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.transport.sink import Outgoing
from tests.bench.market import PARTITIONS, SCHEMA, SYMBOLS, TOPIC, made_trades
from tests.quiet import CpuTime

ROOT = Path(__file__).parents[2]
RATE, P99_MS, GROWTH_MB = 25_000, 100.0, 20.0
"""Bars: trades a second, milliseconds, and what memory may grow by between the first and the last quarter."""
TICK_SECONDS = 0.02
MADE_ROWS = 500_000
"""Made before the clock starts, and played again and again."""


@dataclass(slots=True)
class Acknowledged:
    """A broker's sink that knows when each record was handed over and when it was durable."""

    sink: KafkaSink
    handed: list[deque[tuple[float, int]]] = field(default_factory=lambda: [deque() for _ in range(PARTITIONS)])
    """By partition: when, and how many records."""
    seconds: list[tuple[float, int]] = field(default_factory=list)
    """Time to acknowledgement, and of how many records."""

    def hand(self, partitions: Sequence[int], at: float) -> None:
        for partition, count in enumerate(np.bincount(partitions, minlength=PARTITIONS).tolist()):
            if count:
                self.handed[partition].append((at, count))

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        offset = await self.sink.send(topic, partition, records)
        left, now, waiting = len(records), time.perf_counter(), self.handed[partition]
        while left:
            at, count = waiting.popleft()
            taken = min(left, count)
            self.seconds.append((now - at, taken))
            left -= taken
            if taken < count:
                waiting.appendleft((at, count - taken))
        return offset

    def percentile_ms(self, q: float) -> float:
        """Of records, not of log batches."""
        found = np.array(self.seconds)
        order = np.argsort(found[:, 0])
        reached = np.searchsorted(np.cumsum(found[order, 1]), q / 100 * found[:, 1].sum())
        return float(found[order, 0][min(reached, len(order) - 1)] * 1000)


@dataclass(frozen=True, slots=True)
class Steady:
    """One run at a steady rate."""

    trades: int
    seconds: float
    cpu_seconds: float
    latest_ms: float
    """By how much the stream was ever behind its schedule."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    rss_mb: tuple[float, ...]
    """A second after the start, at each quarter, at the end."""
    stolen_share: float
    """Of the cores' time, by other machines of the host."""

    def missed(self, rate: int) -> list[str]:
        """The bars that are not met."""
        found = []
        if self.trades / self.seconds < 0.995 * rate:
            found.append(f"{self.trades / self.seconds:,.0f} trades/s, {rate:,} wanted")
        if self.p99_ms >= P99_MS:
            found.append(f"p99 {self.p99_ms:.0f} ms, less than {P99_MS:.0f} wanted")
        if self.rss_mb[-1] - self.rss_mb[1] > GROWTH_MB:
            found.append(f"memory grew by {self.rss_mb[-1] - self.rss_mb[1]:.0f} MB from the first quarter to the end, at most {GROWTH_MB:.0f} wanted")
        return found


async def steady(address: str, *, rate: int, seconds: float) -> Steady:
    """Trades at `rate` for `seconds` into a new topic."""
    sink = KafkaSink(address)
    await sink.create_topic(TOPIC, PARTITIONS, {})
    timed = Acknowledged(sink)
    publisher = Publisher(timed, TOPIC, schema=SCHEMA, schema_id=1, partitions=PARTITIONS)  # type: ignore[arg-type] # only `send` is used
    rows = pa.concat_tables([made_trades(start, 50_000) for start in range(0, min(MADE_ROWS, int(rate * seconds)), 50_000)]).combine_chunks()
    home = np.array([partition_of(s.encode(), PARTITIONS) for s in SYMBOLS])
    partitions = home[np.arange(rows.num_rows) % len(SYMBOLS)]
    await publisher.rows(rows.slice(0, 2_000))
    timed.hand(partitions[:2_000].tolist(), time.perf_counter())
    await publisher.flush()  # connections are made, code is warm
    timed.seconds.clear()
    rss, due_rss, latest, done, total = [], [1.0, seconds / 4, seconds / 2, 0.75 * seconds], 0.0, 0, int(rate * seconds)
    began, cpu, me, cores = time.perf_counter(), time.process_time(), psutil.Process(), CpuTime.now()
    while done < total:
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        due = min(int((now - began) * rate), total)
        latest = max(latest, (due - done) / rate - TICK_SECONDS)
        while done < due:
            at = done % rows.num_rows
            count = min(due - done, rows.num_rows - at)
            timed.hand(partitions[at : at + count].tolist(), now)
            await publisher.rows(rows.slice(at, count))
            done += count
        await publisher.push()
        if due_rss and now - began >= due_rss[0]:
            rss.append(me.memory_info().rss / 1e6)
            due_rss.pop(0)
    await publisher.flush()
    elapsed, used, stolen_share = time.perf_counter() - began, time.process_time() - cpu, CpuTime.now().stolen_share_since(cores)
    await sink.close()
    rss.append(me.memory_info().rss / 1e6)
    worst = max(s for s, _ in timed.seconds) * 1000
    return Steady(total, elapsed, used, latest * 1000, timed.percentile_ms(50), timed.percentile_ms(99), worst, tuple(rss), stolen_share)


def on_kafka(*, rate: int, seconds: float) -> int:
    """Run, print and write down; 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as name, Kafka(Path(name) / "kafka", load_settings()) as kafka:
        pin()
        found = asyncio.run(steady(kafka.address, rate=rate, seconds=seconds))
    missed = found.missed(rate)
    text = markdown(found, rate, missed)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "publisher.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if missed else 0


def markdown(found: Steady, rate: int, missed: Sequence[str]) -> str:
    """For people."""
    figures: Mapping[str, str] = {
        "trades/s": f"{found.trades / found.seconds:,.0f}",
        "seconds": f"{found.seconds:.1f}",
        "p50, ms": f"{found.p50_ms:.1f}",
        "p99, ms": f"{found.p99_ms:.1f}",
        "max, ms": f"{found.max_ms:.0f}",
        "CPU us a trade": f"{found.cpu_seconds / found.trades * 1e6:.1f}",
        "behind at most, ms": f"{found.latest_ms:.0f}",
        "RSS, MB": " ".join(f"{mb:.0f}" for mb in found.rss_mb),
        "stolen": f"{found.stolen_share:.1%}",
    }
    head = f"Publisher on one core, {rate:,} trades/s wanted, on a Kafka broker of the same machine:\n"
    lines = [f"| {' | '.join(figures)} |", f"|{'---|' * len(figures)}", f"| {' | '.join(figures.values())} |"]
    return "\n".join([head, *lines, *(f"\n**Missed:** {line}." for line in missed), ""])


def pin() -> None:
    """One core, where the system lets a process say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


async def publish(folder: Path) -> tuple[int, float, float]:
    """Trades, wall seconds and CPU seconds of one run into a new embedded log."""
    sink = EmbeddedSink(folder)
    started, cpu = time.perf_counter(), time.process_time()
    recordings = recorded.trades(ids=MessageIds(uuid4()), now_us=time.time_ns() // 1000)
    for recording in recordings:
        await sink.create_topic(recording.topic, 8, {})
    scripts = [recorded.script(r) for r in recordings]
    published = await recorded.play(sink, scripts, schema="trade_v2", schema_ids={r.topic: 1 for r in recordings})
    await sink.close()
    return sum(p.records for p in published), time.perf_counter() - started, time.process_time() - cpu


def embedded() -> int:
    """As fast as it goes; 1 if that is too slow."""
    pin()
    with tempfile.TemporaryDirectory() as folder:
        trades, seconds, cpu = asyncio.run(publish(Path(folder)))
    rate = trades / seconds
    print(f"{trades:,} trades in {seconds:.2f} s: {rate:,.0f}/s on one core, {cpu / trades * 1e6:.1f} us CPU each (bar {RATE:,}/s)")
    return 0 if rate >= RATE else 1


def main(arguments: list[str] | None = None) -> int:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    return on_kafka(rate=options.rate, seconds=options.seconds) if options.kafka else embedded()


if __name__ == "__main__":
    sys.exit(main())
