"""When a window closes, and what it holds; pure."""

from collections.abc import Collection
from dataclasses import dataclass, field

from k2stream.records import Batch, TopicPartition
from k2stream.verdict import Judged

HOLES_ONLY_MS = 10_000
"""A transactional producer ends every topic with a control batch: offsets without records wait so long for a commit."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """A window is due as soon as one of these is reached."""

    rows: int
    size_bytes: int
    age_ms: int


@dataclass(slots=True)
class OpenWindow:
    """Judged batches collected until the limits say close."""

    number: int
    opened_at: float | None = None
    """Monotonic seconds of the first batch."""
    era: int = 0
    """Which life of its capture opened it; a window of an older one is dropped."""
    judged: list[Judged] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    """What to ack once the window is committed; without their bytes."""
    rows: int = 0
    records: int = 0
    size_bytes: int = 0

    def add(self, judged: Judged, receipt: Batch, *, now: float) -> None:
        """Take one batch; `now` in monotonic seconds."""
        if self.opened_at is None:
            self.opened_at = now
        self.judged.append(judged)
        self.batches.append(receipt)
        self.rows += judged.rows.num_rows
        self.records += judged.rows.num_rows + len(judged.rejects) + len(judged.markers)
        self.size_bytes += judged.size_bytes

    def of(self, tps: Collection[TopicPartition]) -> "OpenWindow":
        """The same window with the batches of these partitions only."""
        kept = OpenWindow(self.number, era=self.era)
        for judged, receipt in zip(self.judged, self.batches, strict=True):
            if receipt.tp in tps:
                kept.add(judged, receipt, now=self.opened_at or 0.0)
        return kept

    def is_full(self, limits: WindowLimits) -> bool:
        return self.records >= limits.rows or self.size_bytes >= limits.size_bytes

    def due_in_ms(self, limits: WindowLimits, *, now: float) -> float | None:
        """Milliseconds until the window must close; 0 or less means now, None that it is empty."""
        if self.opened_at is None:
            return None
        if self.is_full(limits):
            return 0.0
        age_ms = limits.age_ms if self.records else max(limits.age_ms, HOLES_ONLY_MS)
        return age_ms - (now - self.opened_at) * 1000

    def is_due(self, limits: WindowLimits, *, now: float) -> bool:
        due_in_ms = self.due_in_ms(limits, now=now)
        return due_in_ms is not None and due_in_ms <= 0
