"""When a window is full and when it is due."""

import numpy as np
import pytest

from k2stream.records import Batch
from k2stream.rows import TRADES
from k2stream.testing import a_reject
from k2stream.verdict import Judged
from k2stream.window import HOLES_ONLY_MS, OpenWindow, WindowLimits

LIMITS = WindowLimits(rows=10, size_bytes=1_000, age_ms=100)
TP = ("market.equities.trades.asx", 0)


def judged(*, rejects: int = 0, size_bytes: int = 0) -> Judged:
    """A batch without rows."""
    made = tuple(a_reject(*TP, offset=o, key=b"BHP") for o in range(rejects))
    return Judged(TP, 0, max(1, rejects), TRADES.empty_table(), np.empty((0, 2), np.uint64), np.empty(0, bool), made, (), 0 if rejects else 1, 0, size_bytes)


def receipt() -> Batch:
    return Batch(*TP, 0, 1, (), 0)


def test_bad_records_alone_fill_a_window() -> None:
    """A topic of nothing but poison must not draw its whole backlog into memory."""
    window = OpenWindow(1)
    window.add(judged(rejects=10), receipt(), now=0.0)
    assert window.is_full(LIMITS)


def test_bytes_fill_a_window() -> None:
    """Few large records count by their bytes."""
    window = OpenWindow(1)
    window.add(judged(rejects=1, size_bytes=1_000), receipt(), now=0.0)
    assert window.is_full(LIMITS)


@pytest.mark.parametrize(("rejects", "age_ms"), [(1, LIMITS.age_ms), (0, HOLES_ONLY_MS)], ids=["records", "holes only"])
def test_an_old_window_is_due(rejects: int, age_ms: int) -> None:
    """Offsets without a record wait longer: a transactional producer ends every topic with one."""
    window = OpenWindow(1)
    assert window.due_in_ms(LIMITS, now=5.0) is None
    window.add(judged(rejects=rejects), receipt(), now=5.0)
    assert not window.is_due(LIMITS, now=5.0 + age_ms / 1000 - 0.01)
    assert window.is_due(LIMITS, now=5.0 + age_ms / 1000 + 0.01)
