"""What one capture is told by the settings."""

from collections.abc import Callable
from dataclasses import dataclass

from k2stream.dedup.bloom import SeenFilter
from k2stream.gaps import Tracker
from k2stream.validate import Limits
from k2stream.window import WindowLimits


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one capture."""

    data_type: str
    window: WindowLimits
    limits: Limits
    commit_timeout_seconds: float
    start: str
    new_filter: Callable[[], SeenFilter]
    new_tracker: Callable[[], Tracker]
