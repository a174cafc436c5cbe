"""What one capture is told by the settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from k2stream.capture.closing import Closing, settle_and_write
from k2stream.capture.edges import Edges, Staged
from k2stream.capture.stages import Stages
from k2stream.dedup.bloom import SeenFilter
from k2stream.gaps import Tracker
from k2stream.pipeline import Judging, Settled, judge_many
from k2stream.quality.checks import Checks
from k2stream.records import Batch
from k2stream.validate import Limits
from k2stream.verdict import Decoded, Judged
from k2stream.window import OpenWindow, WindowLimits

Judge = Callable[[Sequence[Batch], Sequence[Decoded], Judging], list[Judged]]
SettleAndWrite = Callable[[Edges, Closing, OpenWindow, Stages], tuple[Settled, Staged]]


def nobody_asks(_: Settled) -> None:
    """Nobody wants to know of committed windows."""


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
    judge: Judge = judge_many
    """Batches of one topic as rows and rejects."""
    settle_and_write: SettleAndWrite = settle_and_write
    """A window decided, and its files."""
    new_checks: Callable[[], Checks | None] = lambda: None
    """What looks at rows that are good; begins anew with each life of the capture's memory."""
    on_committed: Callable[[Settled], None] = nobody_asks
    """Told of each window that is in the table, on the loop's thread."""
