"""How long to wait before the next try, and at which address; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

FIRST_SECONDS, LONGEST_SECONDS = 0.5, 60.0


@dataclass(slots=True)
class Backoff:
    """Exponential with full jitter, capped, without an end; each try goes to the next address. One user at a time."""

    urls: Sequence[str]
    random: Random
    first_seconds: float = FIRST_SECONDS
    longest_seconds: float = LONGEST_SECONDS
    failures: int = 0
    """In a row."""

    @property
    def url(self) -> str:
        """Where the next try goes."""
        return self.urls[self.failures % len(self.urls)]

    def failed(self, retry_after_seconds: float | None = None) -> float:
        """A try failed, or its connection was lost; gives the seconds to wait, never fewer than the venue asked for."""
        bound = min(self.first_seconds * 2 ** min(self.failures, 16), self.longest_seconds)
        self.failures += 1
        return max(self.random.uniform(bound / 2, bound), retry_after_seconds or 0.0)

    def succeeded(self) -> None:
        """Data came: the next failure is the first one again, and the address that works is kept."""
        self.urls = [self.url, *(u for u in self.urls if u != self.url)]
        self.failures = 0
