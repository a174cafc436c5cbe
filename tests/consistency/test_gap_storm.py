"""Every gap is known, exactly: 50 symbols in disorder, workers killed again and again, and not one event too many or too few."""

from pathlib import Path

import pytest

from tests.consistency.storm import weather

ROWS = 60_000
ENVIRONMENT = {"K2_WINDOW_ROWS": "2000", "K2_WINDOW_MS": "200", "K2_FETCH_BUFFER_BYTES": "200000", "K2_FSYNC": "false", "K2_LOG_FORMAT": "json"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_gap_events_equal_the_oracle_whatever_the_order_and_whoever_dies(tmp_path: Path) -> None:
    """Rows, ledger, letters and every column of every gap event; `python -m tests.bench.gap_storm` does it with a million trades."""
    outcome = weather(tmp_path / "home", ROWS, kills=3, seed=6, environment=ENVIRONMENT, seconds=300)

    assert outcome.verdict.problems == ()
    assert set(outcome.kinds()) == {"opened", "shrunk", "filled", "reset"}
    assert {"upstream", "feed_reconnect", "dead_letter"} <= set(outcome.causes())
