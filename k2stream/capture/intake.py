"""The way of a batch to its verdict: queued by the agent, joined with others, decoded and judged in a thread of its own."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

from k2stream.capture.edges import Edges
from k2stream.capture.plan import Judge
from k2stream.capture.stages import Stages
from k2stream.clock import Clock
from k2stream.dedup.bloom import SeenFilter
from k2stream.pipeline import Judging, Settled
from k2stream.records import Batch, TopicPartition
from k2stream.topics import TopicName
from k2stream.validate import Limits
from k2stream.verdict import Decoded, Judged

T = TypeVar("T")

LINGER_SECONDS, LINGER_BYTES = 0.05, 64 << 10
"""A call for less than so many bytes waits so long for more: of a steady stream 25 rows come at a time, and a call costs what
several hundred rows do. Their window stays open far longer."""

JOIN_BYTES = 1 << 20
"""Batches decoded in one call: 4,000 trades as they are, some 11,000 if lz4 made them. A call costs about 1 ms whatever it holds;
a larger one costs more a row, for its memory does not stay in the caches and is not there to be used again."""


class Intake:
    """Batches of one data type in the order of their arrival. The filter's one user is its thread."""

    def __init__(self, data_type: str, edges: Edges, *, judge: Judge, limits: Limits, clock: Clock, stages: Stages) -> None:
        self._edges, self._judge_batches, self._limits, self._clock, self._stages = edges, judge, limits, clock, stages
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"decode-{data_type}")
        self._queue: asyncio.Queue[Batch] = asyncio.Queue()
        self.marked_through = 0
        """Number of the newest window whose keys are in the filter."""
        self.judging_since = 0
        """What was marked when the batches now in the thread went there."""

    def put(self, batch: Batch) -> None:
        self._queue.put_nowait(batch)

    def sift(self, keep: Callable[[Batch], bool]) -> None:
        """Let go of every queued batch that is not to be kept; the others stay in order."""
        for _ in range(self._queue.qsize()):
            batch = self._queue.get_nowait()
            if keep(batch):
                self._queue.put_nowait(batch)
            else:
                self._edges.consumer().release(batch)

    async def gather(self) -> list[Batch]:
        """The next batches; waits for one, and for more only while they are a handful of rows."""
        batches = [await self._queue.get()]
        if self._join(batches) < LINGER_BYTES:
            await asyncio.sleep(LINGER_SECONDS)
            self._join(batches)
        self.judging_since = self.marked_through
        return batches

    def _join(self, batches: list[Batch]) -> int:
        """Add what is queued, up to what one call should hold; their bytes."""
        size = sum(batch.size_bytes for batch in batches)
        while size < JOIN_BYTES and not self._queue.empty():
            batches.append(self._queue.get_nowait())
            size += batches[-1].size_bytes
        return size

    async def judge(self, batches: Sequence[Batch], seen: SeenFilter) -> list[Judged]:
        """Raises RegistryUnavailable, or whatever a decoder raises."""
        return await self.run(lambda: self._judge_many(batches, seen))

    async def culprit(self, batches: Sequence[Batch], seen: SeenFilter) -> TopicPartition:
        """The partition whose batch fails alone."""
        for batch in batches:
            try:
                await self.judge([batch], seen)
            except Exception:  # the one that raised is the answer
                return batch.tp
        return batches[0].tp

    async def run(self, work: Callable[[], T]) -> T:
        """Do something with the filter, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def mark(self, seen: SeenFilter, settled: Settled, number: int, is_current: Callable[[], bool]) -> None:
        """Enter a committed window's keys, soon; nobody waits for it."""
        self._thread.submit(self._mark, seen, settled, number, is_current)

    def _mark(self, seen: SeenFilter, settled: Settled, number: int, is_current: Callable[[], bool]) -> None:
        with self._stages.timed("mark"):
            seen.mark(settled.keys, settled.times_us)
        if is_current():
            self.marked_through = number

    def _judge_many(self, batches: Sequence[Batch], seen: SeenFilter) -> list[Judged]:
        with self._stages.timed("decode"):
            decoded = self._edges.decoder.decode_many(batches)
        self._edges.on_step("decode")
        with self._stages.timed("judge"):
            by_topic = groupby(zip(batches, decoded, strict=True), key=lambda pair: pair[0].topic)
            return [judged for _, pairs in by_topic for judged in self._judge_topic([*pairs], seen)]

    def _judge_topic(self, pairs: Sequence[tuple[Batch, Decoded]], seen: SeenFilter) -> list[Judged]:
        name = TopicName.parse(pairs[0][0].topic)
        by = Judging(name.venue.upper(), name.asset_class, seen, self._limits, self._clock.now_us(), self.marked_through)
        return self._judge_batches([batch for batch, _ in pairs], [decoded for _, decoded in pairs], by)
