"""What a worker may believe of its filter after a restart."""

from dataclasses import dataclass, field

from k2stream.capture.restore import NOTHING_BEFORE, _floor, _is_usable
from k2stream.lake.offsets import Counts, Entry, Vector
from k2stream.records import TopicPartition
from k2stream.state.store import Saved, Stamp

A, B = TopicPartition("market.equities.trades.asx", 0), TopicPartition("market.equities.trades.asx", 1)


@dataclass(frozen=True)
class AHead:
    """A head with a vector; snapshots up to `sequence_number` are its ancestors but those that expired."""

    vector: Vector
    watermark_us: int | None = 1_000
    table_uuid: str = "u"
    snapshot_id: int | None = 9
    sequence_number: int = 9
    expired: frozenset[int] = field(default_factory=frozenset)

    def is_ancestor(self, snapshot_id: int) -> bool:
        return snapshot_id not in self.expired


def saved(next_offset: int, floor_us: int, snapshot_id: int = 9) -> Saved:
    return Saved(Stamp("u", 9, snapshot_id, next_offset), b"", [], floor_us)


def test_state_from_before_accepted_loss_is_not_believed() -> None:
    """Its floor speaks of keys since the old start; after the new start the store forgets those."""
    head = AHead({A: Entry(200, 200)})
    assert not _is_usable(head, head.vector[A], saved(100, NOTHING_BEFORE))
    assert _is_usable(head, head.vector[A], saved(200, NOTHING_BEFORE))


def test_a_partition_whose_state_expired_raises_the_floor_of_all() -> None:
    """The filter is one: without A's keys its "no" is worth nothing for B either, up to the newest trade."""
    head = AHead({A: Entry(0, 50, Counts(50)), B: Entry(0, 70, Counts(70))}, expired=frozenset({3}))
    assert _floor(head, {A: saved(50, 10, snapshot_id=3), B: saved(70, 20)}) == 1_001
    assert _floor(head, {A: saved(50, 10), B: saved(70, 20)}) == 20


def test_a_partition_without_any_record_raises_no_floor() -> None:
    """Most partitions of a small topic are empty; they must not make every row a question."""
    head = AHead({A: Entry(0, 50, Counts(50)), B: Entry(0, 0)})
    assert _floor(head, {A: saved(50, 10), B: None}) == 10


def test_with_nothing_stored_every_trade_up_to_the_newest_is_a_question() -> None:
    """Redis wiped, or an adopted table."""
    assert _floor(AHead({A: Entry(100, 100)}), {A: None}) == 1_001
    assert _floor(AHead({A: Entry(0, 0)}, watermark_us=None), {A: None}) == NOTHING_BEFORE
