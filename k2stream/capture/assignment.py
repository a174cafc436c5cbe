"""What a worker goes on with when partitions are assigned: which of them keep memory and batches, and what the others get.

Rebalances are eager: every partition is taken away, and most come back. Memory of those is right as long as nobody else moved
them; the table's head says so. Any doubt is no: then the partition is restored like one that is new.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from k2stream.capture.edges import Edges, Head
from k2stream.capture.restore import Memory, restore
from k2stream.dedup.bloom import SeenFilter
from k2stream.gaps import Tracker
from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a worker's memory stands: at these offsets of that snapshot, or of a later one that it made no part of."""

    table_uuid: str
    snapshot_id: int | None
    committed: Mapping[TopicPartition, int]
    """Per owned partition the `next` that its tracker and its keys reach up to."""


def stand_of(memory: Memory, committed: Mapping[TopicPartition, int]) -> Stand:
    return Stand(memory.head.table_uuid, memory.head.snapshot_id, dict(committed))


def retained(stand: Stand, head: Head, assigned: Iterable[TopicPartition]) -> set[TopicPartition]:
    """The partitions of one data type whose memory holds at `head`.

    Those of equal number are kept together or not at all, as redundant sources share their streams: all that were owned are
    owned again, none is new among them, and the vector names for each the offset that its memory stands at. A head that does not
    build on the snapshot last seen (a rollback, another table, or one that expired meanwhile) keeps nothing.
    """
    if head.table_uuid != stand.table_uuid or stand.snapshot_id is None or not head.is_ancestor(stand.snapshot_id):
        return set()
    before, after = _by_number(stand.committed), _by_number(assigned)
    kept: set[TopicPartition] = set()
    for number, tps in after.items():
        if tps == before.get(number) and all(tp in head.vector and head.vector[tp].next == stand.committed[tp] for tp in tps):
            kept |= tps
    return kept


def _by_number(tps: Iterable[TopicPartition]) -> dict[int, set[TopicPartition]]:
    numbers: defaultdict[int, set[TopicPartition]] = defaultdict(set)
    for tp in tps:
        numbers[tp.partition].add(tp)
    return dict(numbers)


def remember(
    edges: Edges,
    known: Memory | None,
    head: Head,
    tps: set[TopicPartition],
    kept: set[TopicPartition],
    tracker: Tracker,
    new_filter: Callable[[], SeenFilter],
) -> Memory:
    """Memory of `tps` at `head`: of the kept ones as it is `known`, of all others from state and tables; blocks.

    `tracker` is empty. The filter goes on as it is: a key of a partition that left makes a row "maybe", which the table answers.
    """
    if known is None:
        return restore(edges, head, tracker, new_filter(), tps)
    for tp in kept:
        tracker.restore(tp, known.tracker.snapshot(tp))
    if tps == kept:
        return Memory(head, tracker, known.seen)
    memory = restore(edges, head, tracker, known.seen, tps - kept, floors=[known.seen.floor(tp) for tp in kept])
    for tp in kept:  # one floor for all: the filter is one, so its "no" knows no more than what the least known partition gave it
        known.seen.set_floor(tp, max(known.seen.floor(other) for other in tps - kept))
    return memory
