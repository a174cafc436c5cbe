"""Four workers on Kafka, PostgreSQL, S3, Redis and a registry, under load and under every fault that `k2 chaos` can play here.

After each fault one snapshot is audited and compared row by row with what was published; see k2stream/chaos.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.chaos.run import Options, run
from k2stream.dev.stack import Stack
from k2stream.settings import Settings, load_settings

SERVICES = ("kafka", "postgres", "s3", "registry", "redis")
SECONDS = 330.0
"""Most of the list, each at least once; what is left is played by the next seed, and all of it by `make soak`."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(840), *(getattr(pytest.mark, name) for name in SERVICES)]


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Servers of `k2 dev`, which chaos may break, and settings that name them."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    stack = Stack(load_settings())
    try:
        for name in SERVICES:
            for variable, value in stack.up(name).exports.items():
                monkeypatch.setenv(variable, value)
        yield load_settings()
    finally:
        for name in SERVICES:
            stack.down(name)


def test_four_workers_lose_nothing_and_double_nothing_whatever_breaks(servers: Settings) -> None:
    """35 faults at least; every row there once, everything counted, everybody back."""
    seed = int(os.environ.get("K2_TEST_SEED", "1"))
    card = run(servers, Options(seed=seed, workers=4, rate=300, seconds=SECONDS, away_seconds=15.0, storm_beats=3), say=print)
    print(*card.lines(), sep="\n")
    assert card.is_good, "\n".join(card.lines())
    assert card.faults >= 35
