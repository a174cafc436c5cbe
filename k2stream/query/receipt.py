"""What an answer rests on: the snapshot it was read from and how far that reaches."""

from collections.abc import Mapping
from dataclasses import dataclass

from k2stream.lake.offsets import Vector
from k2stream.query.pruning import moment
from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Receipt:
    """The same question at the same snapshot gives the same rows."""

    table: str
    snapshot_id: int | None
    """None: the table was empty."""
    next: Mapping[TopicPartition, int]
    """Per partition the first offset that the answer knows nothing of."""
    dead_letters: int
    """Records below those offsets that could not become rows."""
    watermark_us: int | None
    """Newest event time in the table, microseconds; None where no row has one, as with instruments."""
    files: int
    """Data files read; all others were excluded by their bounds."""

    @classmethod
    def of(cls, table: str, *, snapshot_id: int | None, vector: Vector, watermark_us: int | None, files: int) -> "Receipt":
        letters = sum(entry.counts.dead_letters for entry in vector.values())
        return cls(table, snapshot_id, {tp: entry.next for tp, entry in sorted(vector.items())}, letters, watermark_us, files)

    def as_json(self) -> dict[str, object]:
        """The receipt as plain values."""
        return {
            "table": self.table,
            "snapshot_id": self.snapshot_id,
            "next": {f"{topic}/{partition}": offset for (topic, partition), offset in self.next.items()},
            "dead_letters": self.dead_letters,
            "newest": None if self.watermark_us is None else moment(self.watermark_us).isoformat(),
            "files": self.files,
        }

    def line(self) -> str:
        """The receipt in one sentence."""
        if self.snapshot_id is None:
            return f"From {self.table}, which is empty."
        newest = "" if self.watermark_us is None else f", newest row of {moment(self.watermark_us):%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"From {self.table} at snapshot {self.snapshot_id}: {self.files} data files, {sum(self.next.values()):,} offsets of "
            f"{len(self.next)} partitions, {self.dead_letters:,} dead letters{newest}."
        )
