"""How long a rebalance keeps a data type from being read and committed."""

from dataclasses import dataclass

import structlog

from k2stream import metrics

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Pause:
    """Seconds of this worker's newest rebalance, counted from the moment at which its partitions were taken away.

    Where nothing is published, the first batch and the first commit wait for that too. A first assignment is no pause.
    """

    data_type: str
    rebalances: int = 0
    kept: int = 0
    """Partitions that went on with what was known of them."""
    restored: int = 0
    """Partitions whose memory was read from state and table."""
    assigned_seconds: float | None = None
    batch_seconds: float | None = None
    """Until the first batch of the new assignment."""
    commit_seconds: float | None = None
    _began_at: float | None = None

    def begin(self, now: float) -> None:
        """Partitions are taken away; `now` in monotonic seconds. Once more before anything was read is the same pause."""
        if self._began_at is None or self.batch_seconds is not None:
            self._began_at = now
        self.assigned_seconds = self.batch_seconds = self.commit_seconds = None

    def assigned(self, now: float, *, kept: int, restored: int) -> None:
        """Positions are known."""
        self.kept, self.restored = kept, restored
        if self._began_at is None or self.assigned_seconds is not None:
            return
        self.rebalances += 1
        self.assigned_seconds = now - self._began_at
        metrics.REBALANCES.inc()

    def batch(self, now: float) -> None:
        """A batch was admitted; only the first after an assignment counts."""
        if self._began_at is None or self.assigned_seconds is None or self.batch_seconds is not None:
            return
        self.batch_seconds = now - self._began_at
        metrics.REBALANCE_PAUSE.observe(self.batch_seconds)
        self._tell("rebalance.reads_again", self.batch_seconds)

    def commit(self, now: float) -> None:
        """A window was committed; only the first after an assignment counts."""
        if self._began_at is None or self.assigned_seconds is None or self.commit_seconds is not None:
            return
        self.commit_seconds = now - self._began_at
        metrics.REBALANCE_COMMIT_PAUSE.observe(self.commit_seconds)
        self._tell("rebalance.commits_again", self.commit_seconds)

    def _tell(self, event: str, seconds: float) -> None:
        log.info(event, data_type=self.data_type, seconds=round(seconds, 3), kept=self.kept, restored=self.restored)

    def as_json(self) -> dict[str, float | int | None]:
        """For `/state`."""
        seconds = {"assigned": self.assigned_seconds, "first_batch": self.batch_seconds, "first_commit": self.commit_seconds}
        rounded = {f"{name}_seconds": None if value is None else round(value, 3) for name, value in seconds.items()}
        return {"rebalances": self.rebalances, "kept": self.kept, "restored": self.restored, **rounded}
