"""What is known of a batch partition between two fetches."""

from dataclasses import dataclass


@dataclass(slots=True)
class Reading:
    """Where a batch partition stands in its present epoch."""

    position: int
    """Offset to deliver next."""
    suspect: int | None = None
    """Offset at which the log went on beyond `position` when last read; the second time it is a loss."""
    is_lost: bool = False
