"""Dead letters replayed while everything goes wrong: each becomes one row; what cannot be mended ends, parked."""

from pathlib import Path

import pytest

from tests.consistency.replay_course import faults_of, run


@pytest.mark.timeout(600)
def test_each_replayed_letter_becomes_one_row_whatever_is_killed(tmp_path: Path) -> None:
    """Killed at random steps, run twice, over live traffic; `make bench-replay` does it with 10,000 letters and 20 kills."""
    result = run(tmp_path / "k2", letters=200, kills=3)
    assert faults_of(result) == []
    assert result.kills == 3
