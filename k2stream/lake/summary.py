"""What a snapshot of ours carries in its summary, and how it is read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from k2stream.errors import LakeError
from k2stream.lake.offsets import Vector, pack, unpack

VECTOR = "k2.vector"
COMMIT_ID = "k2.commit-id"
WORKER_ID = "k2.worker-id"
KIND = "k2.kind"
GROUP = "k2.group"
"""The consumer group that the table belongs to: partitions are shared out inside one group only."""
WATERMARK = "k2.watermark-us"
EVENTS_FILE = "k2.events-file"
LETTERS_FILE = "k2.letters-file"
FLAGS_FILE = "k2.flags-file"
OUTBOX_FILES = (EVENTS_FILE, LETTERS_FILE, FLAGS_FILE)
"""What a window names beside its rows: files that lie in another table's folder, until that table takes them."""
TRACKER_FILE = "k2.tracker-file"
APPLIED_THROUGH = "k2.applied-through."
"""Of a table that takes what others name, followed by the source table's name: `{uuid}:{sequence number}` of the last snapshot taken."""
TAKEN_BELOW = "k2.taken-below."
"""Likewise: a packed vector, the offsets below which an event may have been taken already."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What every commit copies from the one before, whatever it adds."""

    vector: Vector
    watermark_us: int | None = None
    outbox: Mapping[str, str] = field(default_factory=dict)
    """`applied-through` and `taken-below` of a table that takes what others name."""
    group: str | None = None
    """None before the first commit of a group, and after older versions."""

    def properties(self) -> dict[str, str]:
        """As entries of a snapshot summary."""
        watermark = {} if self.watermark_us is None else {WATERMARK: str(self.watermark_us)}
        group = {} if self.group is None else {GROUP: self.group}
        return {VECTOR: pack(self.vector), **watermark, **group, **self.outbox}


def carried_by(summary: Mapping[str, str]) -> Carried | None:
    """What a summary carries; None if it is a foreign writer's. Raises LakeError if it cannot be read."""
    if VECTOR not in summary:
        return None
    try:
        vector = unpack(summary[VECTOR])
        watermark_us = int(summary[WATERMARK]) if WATERMARK in summary else None
    except ValueError as exc:
        raise LakeError(f"A snapshot's offset vector cannot be read ({exc}). A newer k2stream may have written it: use that one.") from exc
    outbox = {k: v for k, v in summary.items() if k.startswith((APPLIED_THROUGH, TAKEN_BELOW))}
    return Carried(vector, watermark_us, outbox, summary.get(GROUP))
