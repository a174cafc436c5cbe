"""Time as a value: nothing else in k2stream reads a clock."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_us(self) -> int:
        """Wall time, microseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; for budgets only."""


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Deadline:
    """One budget shared by all operations of a step."""

    at: float
    """Value of the monotonic clock at which the budget is spent."""
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> "Deadline":
        clock = clock or SystemClock()
        return cls(clock.monotonic() + seconds, clock)

    def remaining_seconds(self) -> float:
        return max(0.0, self.at - self.clock.monotonic())

    def is_over(self) -> bool:
        return self.clock.monotonic() >= self.at
