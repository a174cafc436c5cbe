"""Where a partition is read from for the first time, and whether the log is still the one that the vector speaks of."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from k2stream.capture.edges import Edges, Head, Log
from k2stream.clock import Deadline
from k2stream.errors import TransportError, VectorMissing
from k2stream.lake.offsets import Mark, Vector
from k2stream.records import LogBatch, TopicPartition

Bounds = Mapping[TopicPartition, tuple[int, int]]
"""Per topic partition the log's first offset and the one after its last."""

LOOKED_UP_AT_ONCE = 8
"""Log batches of a start in memory and on their way, each of a megabyte at most as producers make them."""

INSTEAD = "for a topic that was made anew choose another name, or tables of their own (K2_NAMESPACE): its offsets would stand twice."


async def head_with(
    edges: Edges,
    tps: set[TopicPartition],
    bounds: Bounds,
    *,
    start: str,
    deadline: Deadline,
    run: Callable[[Callable[[], Head]], Awaitable[Head]],
) -> Head:
    """The table's head once every partition has its entry there; raises if the log cannot serve it. `run` calls in the table's thread."""
    head = await run(edges.table.head)
    fresh = await _bounds_of_first_starts(edges.log, head.vector, tps) if start == "latest" else {}
    starts = starts_of(head.vector, tps, {**fresh, **bounds}, start)
    if starts:
        head = await run(lambda: edges.table.register(starts, deadline))
    check_bounds(head.vector, tps, bounds)
    await check_marks(edges.log, head.vector, tps, bounds)
    return head


async def _bounds_of_first_starts(log: Log, vector: Vector, tps: set[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
    """Of every partition of the topics that the vector does not name, whoever reads it."""
    topics = {tp.topic for tp in tps} - {tp.topic for tp in vector}
    found = [TopicPartition(topic, p) for topic in sorted(topics) for p in range(await log.partitions(topic))]
    return dict(zip(found, await asyncio.gather(*map(log.bounds, found)), strict=True))


def starts_of(vector: Vector, tps: set[TopicPartition], bounds: Bounds, start: str) -> dict[TopicPartition, int]:
    """First offsets of the partitions that the vector does not name.

    `latest` applies to a topic's first start on this table only, which is that of all its partitions at once, whoever reads
    them: `bounds` has them all. A partition that appears later begins at the log's beginning.
    """
    known = {tp.topic for tp in vector}
    if start == "latest":
        first = {tp: end for tp, (_, end) in bounds.items() if tp.topic not in known}
        return first | {tp: bounds[tp][0] for tp in tps if tp not in vector and tp not in first}
    return {tp: bounds[tp][0] for tp in sorted(tps) if tp not in vector}


def check_bounds(vector: Vector, tps: set[TopicPartition], bounds: Bounds) -> None:
    """Raises if the log cannot serve the vector: nothing is skipped in silence."""
    for tp in sorted(tps):
        begin, end = bounds[tp]
        wanted = vector[tp].next
        if wanted > end:
            raise VectorMissing(
                f"{tp.topic}/{tp.partition}: the table continues at offset {wanted}, the log ends at {end}. The topic was re-created or "
                "truncated, or this is another log. Point K2_BROKER at the right one; "
                f"{INSTEAD}"
            )
        if wanted < begin:
            raise TransportError(
                f"{tp.topic}/{tp.partition}: the table continues at offset {wanted}, the log begins at {begin}: "
                f"{begin - wanted} offsets were deleted before they were read. Restore them, or accept the loss with `k2 adopt --lost`."
            )


async def check_marks(log: Log, vector: Vector, tps: set[TopicPartition], bounds: Bounds) -> None:
    """Raises VectorMissing if the log has other log batches than those that the vector marks; TransportError if it does not answer."""
    marks = {tp: mark for tp in sorted(tps) if (mark := vector[tp].mark) is not None and bounds[tp][0] <= mark.base_offset < bounds[tp][1]}
    at_once = asyncio.Semaphore(LOOKED_UP_AT_ONCE)

    async def look_up(tp: TopicPartition, mark: Mark) -> LogBatch | None:
        async with at_once:
            return await log.log_batch_at(tp, mark.base_offset)

    found = await asyncio.gather(*(look_up(tp, mark) for tp, mark in marks.items()))  # a rebalance waits for it
    for (tp, mark), log_batch in zip(marks.items(), found, strict=True):
        check_mark(tp, mark, log_batch)


def check_mark(tp: TopicPartition, mark: Mark, found: LogBatch | None) -> None:
    """Raises VectorMissing if the log has another log batch where the table's last one was read.

    What is not there says nothing, nor does a batch that compaction has thinned out: its checksum is another one then.
    """
    if found is None or found.base_offset > mark.base_offset or not found.raw or found.count <= found.last_offset - found.base_offset:
        return
    if (found.base_offset, found.crc) != mark:
        raise VectorMissing(
            f"{tp.topic}/{tp.partition}: the log batch at offset {mark.base_offset} is not the one that was committed to the table "
            f"(checksum {found.crc:08x} at {found.base_offset}, expected {mark.crc:08x}). The topic was re-created, or this is another log. "
            f"Point K2_BROKER at the right one; {INSTEAD}"
        )
