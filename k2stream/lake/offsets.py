"""The offset vector and the ledger that every snapshot carries; pure."""

from dataclasses import dataclass, field

from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the offsets of one topic partition; the terms of the ledger."""

    rows: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    markers: int = 0
    holes: int = 0
    retired: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            self.dead_letters + other.dead_letters,
            self.markers + other.markers,
            self.holes + other.holes,
            self.retired + other.retired,
        )

    @property
    def offsets(self) -> int:
        """Offsets accounted for: equals next - start when nothing is lost (`retired` rows stay counted in rows)."""
        return self.rows + self.duplicates + self.dead_letters + self.markers + self.holes


@dataclass(frozen=True, slots=True)
class Entry:
    """One topic partition in the offset vector of a snapshot."""

    start: int
    next: int
    counts: Counts = field(default_factory=Counts)
    """The ledger: cumulative since `start`."""
    tracker_file: str | None = None
    """The newest tracker state file that speaks of this partition."""


Vector = dict[TopicPartition, Entry]
