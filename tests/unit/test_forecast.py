"""The forecast is arithmetic that people plan by: it must follow the settings, and suggest what is better and not merely other."""

from dataclasses import replace

import pytest

from k2stream.upkeep.forecast import Flow, Knobs, forecast, suggested

FLOW = Flow(rows_a_second=10_000, bytes_a_row=50, partitions_a_window=3, workers=1)
KNOBS = Knobs(window_ms=5_000, window_rows=250_000, upkeep_ms=600_000, target_bytes=256 << 20)


def test_files_and_sizes_follow_rate_and_window() -> None:
    """A window every 5 s in three exchanges: 51,840 files a day of 83 kB, 43.2 GB."""
    found = forecast(FLOW, KNOBS)
    assert found.files_a_day == pytest.approx(86_400 / 5 * 3)
    assert found.file_bytes == pytest.approx(50 * 50_000 / 3)
    assert found.bytes_a_day == pytest.approx(10_000 * 50 * 86_400)
    assert (found.commits_a_second, found.fresh_seconds) == (0.2, 5)
    assert found.small_files_between_runs == pytest.approx(360)


def test_a_window_that_fills_closes_before_its_time() -> None:
    """250,000 rows at 100,000 a second are 2.5 s."""
    assert forecast(replace(FLOW, rows_a_second=100_000), KNOBS).fresh_seconds == 2.5


def test_no_rows_make_no_files() -> None:
    """A table at rest has nothing to better."""
    still = replace(FLOW, rows_a_second=0)
    assert forecast(still, KNOBS).files_a_day == 0
    assert suggested(still, KNOBS) == (KNOBS, [])


def test_one_second_windows_are_advised_against_and_the_advice_holds() -> None:
    """What is suggested makes fewer files, is no less fresh than a minute, and finds nothing more to better."""
    poor = replace(KNOBS, window_ms=1_000, upkeep_ms=0)
    better, says = suggested(FLOW, poor)
    assert len(says) == 3
    assert forecast(FLOW, better).files_a_day < forecast(FLOW, poor).files_a_day / 5
    assert better.window_ms <= 60_000
    assert better.upkeep_ms > 0
    assert suggested(FLOW, better)[1] == []


def test_workers_that_commit_too_often_get_longer_windows() -> None:
    """Eight workers of one second are eight commits a second to one table."""
    better, _ = suggested(replace(FLOW, workers=8), replace(KNOBS, window_ms=1_000))
    assert forecast(replace(FLOW, workers=8), better).commits_a_second <= 2
