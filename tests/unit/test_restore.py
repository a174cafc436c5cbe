"""What a worker may believe of its filter after a restart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from k2stream.capture import restore as restoring
from k2stream.capture.restore import NOTHING_BEFORE, Memory, _floor, _is_usable, restore
from k2stream.dedup.bloom import SeenFilter
from k2stream.gaps import Notes, Tracker
from k2stream.lake.offsets import Counts, Entry, Vector
from k2stream.records import TopicPartition
from k2stream.state.store import Saved, Stamp
from k2stream.testing import trade_rows

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


class OneTable:
    """A table's rows of one partition, one an offset, and its tracker file; remembers how much was asked for at once."""

    def __init__(self, offsets: Iterable[int], tracker: tuple[int, bytes] | None = None) -> None:
        self.offsets, self.tracker, self.asked = list(offsets), tracker, 0
        self.table, self.store = self, self

    def load(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, Saved]:
        return {}

    def tracker_blob(self, name: str, tp: TopicPartition) -> tuple[int, bytes] | None:
        return self.tracker

    def on_step(self, step: str) -> None:
        """Nobody listens."""

    def rows_of(self, snapshot_id: int, tp: TopicPartition, first: int, last: int) -> pa.Table:
        rows = rows_at(o for o in self.offsets if first <= o < last)
        self.asked = max(self.asked, rows.num_rows)
        return rows


def rows_at(offsets: Iterable[int]) -> pa.Table:
    """Trades of one symbol whose numbers are their offsets, but that ten of a hundred never arrived at the source."""
    return trade_rows({"topic": A.topic, "partition": 0, "offset": o, "source_sequence": o + o // 100 * 10, "trade_id": str(o)} for o in offsets)


def restored(edges: OneTable, entry: Entry) -> Memory:
    seen = SeenFilter(1 << 20, 1 << 40, 0)
    return restore(edges, AHead({A: entry}), Tracker("trades", 10), seen, {A})  # type: ignore[arg-type] # as much of the edges as it asks


def test_a_restart_far_behind_its_state_holds_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty windows of rows at once would be gigabytes; in steps they bring the same state."""
    whole = OneTable(range(1_000))
    expected = restored(whole, Entry(0, 1_000))
    monkeypatch.setattr(restoring, "STEP_OFFSETS", 64)
    stepwise = OneTable(range(1_000))
    found = restored(stepwise, Entry(0, 1_000))
    assert (whole.asked, stepwise.asked) == (1_000, 64)
    assert found.tracker.snapshot(A) == expected.tracker.snapshot(A)


@pytest.mark.parametrize("has_tracker_file", [True, False])
def test_a_gap_over_accepted_losses_has_that_cause(has_tracker_file: bool) -> None:
    """The numbers are missing because the log lost them, and no feed is to blame; state from before the loss is still read."""
    before = Tracker("trades", 10)
    before.replay(rows_at(range(80)))
    edges = OneTable(range(80), (80, before.snapshot(A)) if has_tracker_file else None)
    memory = restored(edges, Entry(95, 95, tracker_file="x" if has_tracker_file else None, lost_from=80))
    (event,) = memory.tracker.settle(rows_at(range(95, 99)), Notes()).to_pylist()
    assert (event["first_sequence"], event["last_sequence"], event["missing"], event["cause"]) == (80, 94, 15, "topic_loss")


def test_a_loss_is_the_cause_of_one_gap_only() -> None:
    """State that was saved after the loss knows it; a later gap has its own cause."""
    memory = restored(OneTable([*range(80), *range(95, 99)]), Entry(95, 99, lost_from=80))
    (event,) = memory.tracker.settle(rows_at([105]), Notes()).to_pylist()
    assert event["cause"] == "upstream"


class TwoTopics(OneTable):
    """A stream that two feeds report into a topic each: rows as (offset, number) and tracker files by topic."""

    def __init__(self, rows: Mapping[TopicPartition, list[tuple[int, int]]], trackers: Mapping[TopicPartition, tuple[int, bytes]]) -> None:
        super().__init__(())
        self.rows, self.trackers = rows, trackers

    def tracker_blob(self, name: str, tp: TopicPartition) -> tuple[int, bytes] | None:
        return self.trackers[tp]

    def rows_of(self, snapshot_id: int, tp: TopicPartition, first: int, last: int) -> pa.Table:
        return numbered(tp, [(offset, number) for offset, number in self.rows[tp] if first <= offset < last])


def numbered(tp: TopicPartition, rows: Iterable[tuple[int, int]]) -> pa.Table:
    return trade_rows({"topic": tp.topic, "partition": tp.partition, "offset": o, "source_sequence": n, "trade_id": str(n)} for o, n in rows)


def test_a_stream_of_two_topics_is_restored_from_the_newer_of_its_states() -> None:
    """One topic's file is old and many rows lie behind it; what the other topic filled by its newer file is not missing again."""
    one, other = TopicPartition("market.crypto.trades.binance", 0), TopicPartition("market.crypto.trades.binance-b", 0)
    first, then, late = [(0, 1), (1, 2), (2, 3)], [(3, 4), (4, 5), (5, 6), (6, 8)], [(o, o + 2) for o in range(7, 40)]
    before = Tracker("trades", 10)
    before.replay(numbered(one, first))
    old = 3, before.snapshot(one)
    before.replay(numbered(one, then))
    before.replay(numbered(other, [(0, 7)]))
    edges = TwoTopics({one: first + then + late, other: [(0, 7)]}, {one: old, other: (1, before.snapshot(other))})
    vector = {one: Entry(0, 40, tracker_file="x"), other: Entry(0, 1, tracker_file="y")}
    memory = restore(edges, AHead(vector), Tracker("trades", 10), SeenFilter(1 << 20, 1 << 40, 0), set(vector))  # type: ignore[arg-type] # as above
    assert memory.tracker.summary()["missing"] == 0
    assert memory.tracker.settle(numbered(one, [(40, 42)]), Notes()).num_rows == 0
