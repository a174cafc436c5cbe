"""Four workers on Kafka, PostgreSQL, S3, Redis and a registry, under load and under every fault that `k2 chaos` can play here.

After each fault one snapshot is audited and compared row by row with what was published; see k2stream/chaos.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("kafka", "postgres", "s3", "registry", "redis")

FAULTS, MOST_MINUTES = 35, 11.0
"""Most of the list, in an order that the seed chooses; `make soak` plays all of it several times. Five minutes where nothing else runs."""
SEED = os.environ.get("K2_TEST_SEED", "1")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(840), *(getattr(pytest.mark, name) for name in SERVICES)]


def k2(environment: Mapping[str, str], *arguments: str, seconds: float = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k2stream.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False, timeout=seconds)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables that name servers of `k2 dev`, which chaos may break."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("K2_", "AWS_")) or name == "K2_CACHE"}
    clean["K2_HOME"] = str(tmp_path / "home")
    try:
        up = k2(clean, "dev", "up", *SERVICES)
        assert up.returncode == 0, up.stderr
        said = dict(line.removeprefix("export ").split("=", 1) for line in up.stdout.splitlines())
        yield clean | said
    finally:
        k2(clean, "dev", "down")


def test_four_workers_lose_nothing_and_double_nothing_whatever_breaks(environment: dict[str, str]) -> None:
    """So many faults; every row there once, everything counted after each, everybody back."""
    options = ("--workers", "4", "--rate", "300", "--faults", str(FAULTS), "--minutes", str(MOST_MINUTES), "--away", "15", "--seed", SEED)
    done = k2(environment, "chaos", "--json", *options, seconds=820)
    assert done.returncode in (0, 1), done.stderr
    print(done.stderr, done.stdout, sep="\n")
    card = json.loads(done.stdout)
    assert (card["lost"], card["extra"], card["problems"]) == (0, 0, [])
    assert [p for p in card["played"] if not p["is_good"] or p["recovered_seconds"] is None] == []
    assert card["good"]
    assert card["faults"] >= FAULTS
