"""Pauses between attempts to reach a broker."""

from collections.abc import Iterator

PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
MAX_PAUSE_SECONDS = 5.0


def backoff() -> Iterator[float]:
    """Seconds to wait before the next attempt: without end, growing to 5."""
    yield from PAUSES_SECONDS
    while True:
        yield MAX_PAUSE_SECONDS
