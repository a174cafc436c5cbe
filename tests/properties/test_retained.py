"""What a rebalance keeps is what nobody else touched, by the word of an oracle that saw every commit."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.capture.assignment import Stand, retained
from k2stream.lake.head import Head
from k2stream.lake.offsets import Entry
from k2stream.lake.summary import Carried
from k2stream.records import TopicPartition

TPS = [TopicPartition(f"market.crypto.trades.{exchange}", number) for exchange in ("a", "b") for number in range(3)]


@dataclass(slots=True)
class History:
    """A table's snapshots, each with the offsets it left and the partitions that others moved to get there."""

    uuid: str = "first"
    snapshots: list[tuple[int, dict[TopicPartition, int], frozenset[TopicPartition]]] = field(default_factory=list)
    """The living line, oldest first: id, next offsets, and who was moved by another worker in it."""
    ids: int = 0
    lost: bool = False
    """The table's line was cut below what this worker saw: rolled back, expired or made anew."""

    def add(self, nexts: dict[TopicPartition, int], moved: frozenset[TopicPartition]) -> None:
        self.ids += 1
        self.snapshots.append((self.ids, nexts, moved))

    def commit(self, moves: dict[TopicPartition, int], *, is_ours: bool) -> None:
        _, nexts, _ = self.snapshots[-1]
        moved = {tp: nexts[tp] + records for tp, records in moves.items() if records}
        self.add({**nexts, **moved}, frozenset() if is_ours else frozenset(moved))

    def head(self) -> Head:
        newest, nexts, _ = self.snapshots[-1]
        vector = {tp: Entry(0, offset) for tp, offset in nexts.items()}
        ids = frozenset(id_ for id_, _, _ in self.snapshots)
        return Head(newest, newest, self.uuid, Carried(vector), ids, frozenset(), has_own_vector=True)


moves = st.dictionaries(st.sampled_from(TPS), st.integers(0, 3), max_size=4)
events = st.one_of(
    st.tuples(st.just("others"), moves),
    st.tuples(st.just("rollback"), st.integers(1, 4)),
    st.tuples(st.just("expire"), st.integers(1, 4)),
    st.tuples(st.just("recreate"), moves),
)
owned = st.sets(st.sampled_from(TPS))


def happen(history: History, seen: int, event: tuple[str, object]) -> None:
    match event:
        case ("others", dict(found)):
            history.commit(found, is_ours=False)
        case ("rollback", int(count)):
            del history.snapshots[max(1, len(history.snapshots) - count) :]
        case ("expire", int(count)):
            del history.snapshots[: min(count, len(history.snapshots) - 1)]
        case ("recreate", dict(found)):
            history.uuid += "'"
            history.snapshots = [(history.ids + 1, dict.fromkeys(TPS, 0), frozenset())]
            history.ids += 1
            history.commit(found, is_ours=False)
    history.lost = history.lost or all(id_ != seen for id_, _, _ in history.snapshots)


def oracle(history: History, seen: int, before: set[TopicPartition], after: set[TopicPartition]) -> set[TopicPartition]:
    """Walk over every snapshot since the one last seen, and every pair of partitions that share a number."""
    if history.lost:
        return set()
    touched = {tp for id_, _, moved in history.snapshots if id_ > seen for tp in moved}
    kept = set()
    for tp in before & after:
        peers = [other for other in TPS if other.partition == tp.partition]
        changed_hands = any((peer in before) != (peer in after) for peer in peers)
        if not changed_hands and not any(peer in touched for peer in peers if peer in before):
            kept.add(tp)
    return kept


@settings(max_examples=500)
@given(ours=st.lists(moves, min_size=1, max_size=4), before=owned, after=owned, later=st.lists(events, max_size=5))
def test_memory_is_kept_of_exactly_what_nobody_else_touched(
    ours: list[dict[TopicPartition, int]], before: set[TopicPartition], after: set[TopicPartition], later: list[tuple[str, object]]
) -> None:
    """Commits of others, rollbacks, expiry and a table made anew between two assignments: whatever could have moved a partition ends its memory."""
    history = History()
    history.add(dict.fromkeys(TPS, 0), frozenset())
    for found in ours:
        history.commit(found, is_ours=True)
    seen, nexts, _ = history.snapshots[-1]
    stand = Stand(history.uuid, seen, {tp: nexts[tp] for tp in before})
    for event in later:
        happen(history, seen, event)

    assert retained(stand, history.head(), after) == oracle(history, seen, before, after)


@given(before=owned, after=owned)
def test_nothing_is_kept_of_a_table_that_was_empty_when_last_seen(before: set[TopicPartition], after: set[TopicPartition]) -> None:
    """Without a snapshot there is nothing that the head could build on."""
    history = History()
    history.add(dict.fromkeys(TPS, 0), frozenset())
    assert retained(Stand(history.uuid, None, dict.fromkeys(before, 0)), history.head(), after) == set()
