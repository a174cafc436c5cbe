"""Where reading begins, and what a log must still hold to be read on."""

import asyncio
from collections.abc import Callable

import pytest

from k2stream.capture.start import check_bounds, check_mark, head_with, starts_of
from k2stream.clock import Deadline
from k2stream.errors import SettingsError, TransportError, VectorMissing
from k2stream.lake.group import claimed
from k2stream.lake.head import Head
from k2stream.lake.offsets import Entry, Mark, Vector
from k2stream.lake.summary import Carried, carried_by
from k2stream.records import LogBatch, TopicPartition
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing

TOPIC = "market.equities.trades.asx"
A, B, C = (TopicPartition(TOPIC, p) for p in range(3))
BOUNDS = {A: (5, 50), B: (0, 70), C: (0, 0)}


def test_latest_is_one_moment_for_all_partitions_of_a_topic() -> None:
    """The worker that comes first starts those of all others too: the second must not read years of history."""
    assert starts_of({}, {A}, BOUNDS, "latest") == {A: 50, B: 70, C: 0}
    assert starts_of({}, {A}, BOUNDS, "earliest") == {A: 5}


def test_a_partition_that_is_added_later_is_read_from_its_beginning() -> None:
    """`latest` is for a topic's first start: what comes into a new partition came after it."""
    vector: Vector = {A: Entry(50, 60)}
    assert starts_of(vector, {A, B}, BOUNDS, "latest") == {B: 0}


class OneLog:
    """A log with three partitions; it holds one log batch of each."""

    def __init__(self, *found: LogBatch) -> None:
        self.found = {TopicPartition(b.topic, b.partition): b for b in found}

    async def partitions(self, topic: str) -> int:
        return len(BOUNDS)

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return BOUNDS[tp]

    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None:
        return self.found.get(tp)


class OneTable:
    """A table that keeps its vector in memory."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector

    def head(self) -> Head:
        return Head(1, 1, "u", Carried(self.vector), frozenset({1}), frozenset(), has_own_vector=True)

    def register(self, starts: dict[TopicPartition, int], deadline: Deadline) -> Head:
        self.vector = {**{tp: Entry(s, s) for tp, s in starts.items()}, **self.vector}
        return self.head()


class SomeEdges:
    def __init__(self, log: OneLog, table: OneTable) -> None:
        self.log, self.table = log, table


def head_for(tps: set[TopicPartition], *, log: OneLog, table: OneTable, start: str = "latest") -> Head:
    """What a worker that was assigned `tps` finds."""

    async def run(work: Callable[[], Head]) -> Head:
        return work()

    edges, bounds = SomeEdges(log, table), {tp: BOUNDS[tp] for tp in tps}
    return asyncio.run(head_with(edges, tps, bounds, start=start, deadline=Deadline.after(1), run=run))  # type: ignore[arg-type] # as much of the edges as it asks


def test_two_workers_that_start_at_latest_miss_nothing_and_read_no_history() -> None:
    """Whoever registers first registers all, in one snapshot; the other finds its entries there."""
    table = OneTable({})
    head_for({A}, log=OneLog(), table=table)
    second = head_for({B, C}, log=OneLog(), table=table)
    assert {tp: e.next for tp, e in second.vector.items()} == {A: 50, B: 70, C: 0}


def log_batch(tp: TopicPartition, base_offset: int, text: bytes = b"value", count: int = 3) -> LogBatch:
    """A real one, as if the log had given it this offset."""
    raw = bytearray(build_log_batch([Outgoing(None, text, 1_700_000_000_000)] * count))
    raw[:8] = base_offset.to_bytes(8, "big")
    return LogBatch.parse(tp.topic, tp.partition, bytes(raw))


def test_a_topic_that_was_made_anew_is_not_read_on() -> None:
    """Its offsets mean other records: rows would be skipped, or stand twice. The sentence says where and what to do."""
    held, other = log_batch(A, 10), log_batch(A, 10, b"another")
    table = OneTable({A: Entry(0, 13, mark=Mark(10, held.crc))})
    assert head_for({A}, log=OneLog(held), table=table).vector[A].next == 13
    with pytest.raises(VectorMissing, match=rf"{TOPIC}/0: the log batch at offset 10 is not the one.*K2_BROKER.*K2_NAMESPACE"):
        head_for({A}, log=OneLog(other), table=table)
    with pytest.raises(VectorMissing, match="re-created"):
        check_mark(A, Mark(10, held.crc), log_batch(A, 8))


def test_what_retention_or_compaction_took_says_nothing() -> None:
    """A log that no longer has that batch, or has it thinned out, may be the right one: nobody is refused on a guess."""
    held = log_batch(A, 10)
    thinned = LogBatch(held.topic, 0, 10, 12, 10, 1, 0, 0, held.kind, log_batch(A, 10, b"another").raw)
    check_mark(A, Mark(10, 1), None)
    check_mark(A, Mark(10, 1), log_batch(A, 13))
    check_mark(A, Mark(10, 1), thinned)
    head_for({A}, log=OneLog(log_batch(A, 2)), table=OneTable({A: Entry(0, 13, mark=Mark(2, 1))}))  # below the log's beginning
    head_for({A}, log=OneLog(log_batch(A, 10)), table=OneTable({A: Entry(0, 13)}))  # of an older version


def test_a_vector_outside_the_log_is_refused_with_what_to_do() -> None:
    """Above its end it is another log, below its beginning offsets were lost."""
    with pytest.raises(VectorMissing, match=r"continues at offset 51, the log ends at 50.*K2_BROKER"):
        check_bounds({A: Entry(0, 51)}, {A}, BOUNDS)
    with pytest.raises(TransportError, match=r"begins at 5: 3 offsets.*k2 adopt --lost"):
        check_bounds({A: Entry(0, 2)}, {A}, BOUNDS)


def test_a_second_group_is_refused_by_name() -> None:
    """Both are named, and the three ways out; what is committed next carries the group."""
    head = OneTable({A: Entry(0, 5)}).head()
    first = claimed(head, "market_data.trades", "one")
    summary = first.carried.properties()
    again = Head(2, 2, "u", carried_by(summary) or Carried({}), frozenset(), frozenset(), has_own_vector=True)
    assert claimed(again, "market_data.trades", "one") is again
    with pytest.raises(SettingsError, match=r"market_data.trades belongs to group 'one', this worker is of group 'two'.*K2_APP_ID=one.*k2 adopt --group"):
        claimed(again, "market_data.trades", "two")
