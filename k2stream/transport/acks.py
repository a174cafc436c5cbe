"""Which offsets of each partition are done: ranges acked in any order, committable up to the first one missing; pure."""

from dataclasses import dataclass, field

from k2stream.records import TopicPartition


@dataclass(slots=True)
class RangeAcks:
    """One partition read from `start`; `done` grows only over ranges that were acked, never over a jump.

    Example: start 10, acks [20, 30) and [10, 15) give 15; then [15, 20) gives 30.
    """

    start: int
    done: int = field(init=False)
    """Every offset in [start, done) was acked; a group's offset may be committed up to here."""
    _later: list[tuple[int, int]] = field(init=False, default_factory=list)
    """Acked ranges above `done`, disjoint, ascending: few, as windows commit in the order they closed."""

    def __post_init__(self) -> None:
        self.done = self.start

    def ack(self, first: int, next_offset: int) -> None:
        """Mark [first, next_offset) as done; overlapping or repeated ranges are harmless, empty ones mean nothing."""
        first = max(first, self.done)
        if first >= next_offset:
            return
        self._later = _merged([*self._later, (first, next_offset)])
        if self._later[0][0] == self.done:
            self.done = self._later.pop(0)[1]

    @property
    def waiting(self) -> int:
        """Acked ranges that wait for an earlier one."""
        return len(self._later)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same offsets as disjoint ranges that do not touch, ascending."""
    merged: list[tuple[int, int]] = []
    for first, next_offset in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], next_offset))
        else:
            merged.append((first, next_offset))
    return merged


@dataclass(slots=True)
class BatchAcks:
    """The acks of all partitions in their present epoch."""

    _partitions: dict[TopicPartition, RangeAcks] = field(default_factory=dict)

    def begin(self, tp: TopicPartition, position: int) -> None:
        """Start over at `position`; whatever was acked before is forgotten."""
        self._partitions[tp] = RangeAcks(position)

    def forget(self, tp: TopicPartition) -> None:
        self._partitions.pop(tp, None)

    def ack(self, tp: TopicPartition, first: int, next_offset: int) -> None:
        """Nothing happens to a partition that was never begun."""
        if tp in self._partitions:
            self._partitions[tp].ack(first, next_offset)

    def committable(self, tp: TopicPartition) -> int | None:
        """Offset that may be committed, or None if nothing was acked since `begin`."""
        acks = self._partitions.get(tp)
        return acks.done if acks is not None and acks.done > acks.start else None

    def pending(self) -> list[TopicPartition]:
        """Partitions with something to commit."""
        return [tp for tp in list(self._partitions) if self.committable(tp) is not None]
