"""One capture in this process: a real table, a log by hand, a sink that stands still where a test wants it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pyiceberg.catalog import Catalog

from k2stream.capture.capture import Capture
from k2stream.capture.edges import Edges
from k2stream.capture.plan import Plan
from k2stream.clock import Deadline, SystemClock
from k2stream.dedup.bloom import SeenFilter
from k2stream.errors import TransportError
from k2stream.gaps import Tracker
from k2stream.health import Health
from k2stream.query.engine import Engine
from k2stream.query.origin import rows_of
from k2stream.query.seen import TableSeen
from k2stream.records import Batch, LogBatch, TopicPartition
from k2stream.state.memory import MemoryStore
from k2stream.testing import a_reject, trade_rows
from k2stream.validate import Limits
from k2stream.verdict import Decoded, Reject
from k2stream.window import WindowLimits
from tests.integration.lake_site import LakeSite, soon, window

TOPIC = "market.equities.trades.asx"
ONE, TWO = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
WINDOW_ROWS = 10
HOUR_US = 3_600_000_000

class HandLog:
    """Consumer, log and decoder of a capture: offset n of partition p is the trade ASX-p-n."""

    def __init__(self) -> None:
        self.epochs: dict[TopicPartition, int] = {}
        self.acked: list[Batch] = []
        self.decoded: list[tuple[TopicPartition, int]] = []
        self.released: list[Batch] = []
        """Judged, and in the open window if they count."""
        self.restarted: list[set[TopicPartition]] = []
        self.bad: set[tuple[TopicPartition, int]] = set()
        """Records that become letters."""
        self.letters: set[tuple[TopicPartition, int]] = set()
        self.is_away = False
        """True while it takes no letters."""

    def begin_epoch(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self.epochs[tp] = self.epochs.get(tp, 0) + 1

    def batch(self, tp: TopicPartition, first: int, end: int) -> Batch:
        return Batch(tp.topic, tp.partition, first, end, (), end - first, self.epochs[tp])

    def epoch(self, tp: TopicPartition) -> int:
        return self.epochs.get(tp, 0)

    def ack_batch(self, batch: Batch) -> None:
        self.acked.append(batch)

    def release(self, batch: Batch) -> None:
        self.released.append(batch)

    def pause_batch(self, tps: Iterable[TopicPartition]) -> None:
        """Nothing is fetched here."""

    resume_batch = pause_batch

    def set_floors(self, floors: object) -> None:
        """Nothing expires here."""

    async def restart(self, tps: Iterable[TopicPartition]) -> None:
        self.restarted.append(set(tps))

    async def bounds(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return dict.fromkeys(tps, (0, 1_000))

    async def partitions(self, topic: str) -> int:
        return 2

    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None:
        return None

    def decode_many(self, batches: Sequence[Batch]) -> list[Decoded]:
        self.decoded += [(b.tp, o) for b in batches for o in range(b.first_offset, b.next_offset)]
        return [self._decoded(b.tp, range(b.first_offset, b.next_offset)) for b in batches]

    def _decoded(self, tp: TopicPartition, offsets: range) -> Decoded:
        rejects = tuple(a_reject(tp.topic, tp.partition, o) for o in offsets if (tp, o) in self.bad)
        return Decoded(trade_rows([self.row(tp, o) for o in offsets if (tp, o) not in self.bad]), rejects)

    async def publish(self, rejects: Sequence[Reject]) -> None:
        if self.is_away:
            raise TransportError("the log is away")
        self.letters |= {(TopicPartition(r.topic, r.partition), r.offset) for r in rejects}

    def row(self, tp: TopicPartition, offset: int) -> dict[str, object]:
        return {"trade_id": f"ASX-{tp.partition}-{offset}", "source_sequence": offset + 1, "partition": tp.partition, "offset": offset}


class Barrier:
    """Holds the sink at a step until it is let go."""

    def __init__(self) -> None:
        self.step = ""
        self.reached, self.open = threading.Event(), threading.Event()

    def hold(self, step: str) -> None:
        self.step = step
        self.reached.clear()
        self.open.clear()

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.reached.set()
            assert self.open.wait(30), "nobody let the sink go"


class Scene:
    """One capture, its log, and the table it shares with others."""

    def __init__(self, home: Path, *, fault: Callable[[Catalog], object] | None = None, commit_seconds: float = 20) -> None:
        self.site, self.log, self.barrier, self.fatal = LakeSite(home), HandLog(), Barrier(), list[str]()
        self.table = self.site.worker(fault, on_step=self.barrier)
        engine = Engine()
        edges = Edges(
            consumer=lambda: self.log,
            log=self.log,
            decoder=self.log,
            table=self.table,
            lookup=TableSeen(self.table.files, HOUR_US, engine=engine),
            rows_of=lambda snapshot_id, tp, first, last: rows_of(self.table.files(snapshot_id), TopicPartition(*tp), first, last, engine=engine),
            store=MemoryStore(),
            letters=self.log.publish,
            on_step=self.barrier,
        )
        plan = Plan(
            data_type="trades",
            window=WindowLimits(WINDOW_ROWS, 1 << 30, 3_600_000),
            limits=Limits(max_ahead_us=HOUR_US, max_age_us=0),
            commit_timeout_seconds=commit_seconds,
            start="earliest",
            new_filter=lambda: SeenFilter(1 << 20, 24 * HOUR_US, HOUR_US),
            new_tracker=lambda: Tracker("trades", 10),
        )
        self.capture = Capture(plan, edges, clock=SystemClock(), health=Health(), on_fatal=self.fatal.append)

    async def assign(self, *tps: TopicPartition) -> dict[TopicPartition, int]:
        """What Faust does once a rebalance is over: epochs begin, positions are asked for."""
        self.log.begin_epoch(tps)
        return dict(await self.capture.positions(set(tps)))

    async def revoke(self, *tps: TopicPartition, seconds: float = 10) -> None:
        await self.capture.revoke(set(tps), Deadline.after(seconds))
        self.log.begin_epoch(tps)

    async def deliver(self, tp: TopicPartition, first: int, end: int) -> None:
        """A batch arrives and is judged."""
        batch = self.log.batch(tp, first, end)
        await self.capture.take(batch)
        await until(lambda: batch in self.log.released)

    async def leave_open_window(self) -> None:
        """The sink stands still before its commit of ONE [0, 10); ONE [10, 13) and TWO [0, 4) wait in the open window; then all is taken away."""
        await self.assign(ONE, TWO)
        self.barrier.hold("3.before")
        await self.deliver(ONE, 0, WINDOW_ROWS)
        await until(self.barrier.reached.is_set)
        await self.deliver(ONE, 10, 13)
        await self.deliver(TWO, 0, 4)
        assert self.open_rows() == 7
        await self.revoke(ONE, TWO, seconds=0.1)

    def open_rows(self) -> int:
        window_json = self.capture.state()["window"]
        assert isinstance(window_json, dict)
        return int(window_json["rows"])

    def committed(self) -> dict[int, list[int]]:
        """Offsets in the table, by partition."""
        found: dict[int, list[int]] = {0: [], 1: []}
        rows = self.site.rows()
        for partition, offset in zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True):
            found[partition].append(offset)
        return {partition: sorted(offsets) for partition, offsets in found.items()}

    def other_commits(self, tp: TopicPartition, first: int, end: int) -> None:
        """Another worker commits these offsets."""
        other = self.site.worker()
        other.commit(other.write(window(1, first, end, tp=tp)), soon())


async def until(holds: object, seconds: float = 20) -> None:
    assert callable(holds)
    deadline = Deadline.after(seconds)
    while not holds():
        assert not deadline.is_over(), "it did not happen"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def scene(home: Path, *, fault: Callable[[Catalog], object] | None = None, commit_seconds: float = 20) -> AsyncIterator[Scene]:
    this = Scene(home, fault=fault, commit_seconds=commit_seconds)
    running = asyncio.create_task(this.capture.run())
    try:
        yield this
    finally:
        this.barrier.open.set()
        running.cancel()
