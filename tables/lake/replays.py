"""`replays`: who replayed, edited or parked which dead letters, and what became of each; rows are only ever added."""

from k2stream.deadletter.trail import REPLAYS

__all__ = ["REPLAYS"]
