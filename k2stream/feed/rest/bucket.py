"""How long to wait before the next question, so that a venue's limit is kept; pure: time is told."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at a steady rate, up to a bound; a question takes one. One user at a time."""

    per_second: float
    at_once: float
    _tokens: float | None = None
    _at: float = 0.0

    def take(self, now: float) -> float:
        """Seconds to wait before the question may be asked; `now` never goes back."""
        tokens = self.at_once if self._tokens is None else min(self.at_once, self._tokens + (now - self._at) * self.per_second)
        self._tokens, self._at = tokens - 1, now
        return max(0.0, -self._tokens / self.per_second)
