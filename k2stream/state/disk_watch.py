"""Whether what was saved has reached Redis's disk: asked of servers that can tell (WAITAOF: Redis 7.2, Valkey), and never waited for."""

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

LOCAL, REPLICAS, TIMEOUT_MS = 1, 0, 1
QUESTION = ("WAITAOF", LOCAL, REPLICAS, TIMEOUT_MS)
"""Is everything that this connection wrote before in the append-only file, synced? Answers with a count, after a millisecond at most."""
SYNC_SECONDS = 0.9
"""With `appendfsync everysec` a save has had its sync by then, so the question goes along with the next save and costs no wait."""
BEHIND_SECONDS = 10.0


class DiskWatch:
    """What one server says about its append-only file; speaks up once when it changes."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._can_tell = True
        self._saved_at: float | None = None
        self._behind_since: float | None = None
        self._is_told = False

    def question(self) -> tuple[str | int, ...] | None:
        """What to ask before the next save, on the connection of the last; None if there is nothing to learn."""
        is_due = self._saved_at is not None and self._monotonic() - self._saved_at >= SYNC_SECONDS
        return QUESTION if self._can_tell and is_due else None

    def saved(self) -> None:
        """A save went through."""
        self._saved_at = self._monotonic()

    def lost(self) -> None:
        """Another server, or another configuration, may answer from now on."""
        self._can_tell, self._saved_at, self._behind_since = True, None, None

    def take(self, answer: object) -> None:
        """The answer to the question, or the error in its place."""
        if isinstance(answer, Exception):
            self._can_tell = False
            say = log.debug if "unknown command" in str(answer) else log.info  # an older server is no fault; one without the file is worth a line
            say("state.disk_unknown", cause=str(answer), then="a Redis that loses its memory costs a slower start; the tables hold all state")
        elif isinstance(answer, list) and answer[0] >= LOCAL:
            self._on_disk()
        else:
            self._behind()

    def _on_disk(self) -> None:
        self._behind_since = None
        if self._is_told:
            self._is_told = False
            log.info("state.on_disk_again")

    def _behind(self) -> None:
        now = self._monotonic()
        self._behind_since = now if self._behind_since is None else self._behind_since
        if now - self._behind_since >= BEHIND_SECONDS and not self._is_told:
            self._is_told = True
            log.warning("state.not_on_disk", seconds=round(now - self._behind_since), why="Redis does not sync its append-only file: look at its disk")
