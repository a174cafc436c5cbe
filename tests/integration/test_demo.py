"""`k2 demo` as a newcomer runs it: whole processes, killed and run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k2stream.home import Home
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.fingerprint import Fingerprint, table_fingerprint
from k2stream.rows import TRADES
from k2stream.settings import Settings
from tables.lake.gaps import GAPS_COLUMNS

ROWS = 6_000
ROOT = Path(__file__).parents[2]
OF_ONE_PUBLICATION = {"message_id", "ingestion_timestamp", "topic", "partition", "offset"}
"""What differs when the same ticks are published once more."""
OF_ONE_ORIGIN = {"event_id", "topic", "partition", "offset", "previous_offset"}

pytestmark = pytest.mark.timeout(300)


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """A demo in a process group of its own."""
    command = [sys.executable, "-m", "k2stream.cli", "demo", "--headless", "--rows", str(ROWS), *arguments]
    environment = os.environ | {"K2_HOME": str(home)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def play(home: Path, *arguments: str) -> str:
    """What a demo that ran to its end printed; it must end well."""
    demo = start(home, *arguments)
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    return said


def audited(home: Path) -> dict[str, int]:
    """Sums of the ledger of `k2 audit --json`, which must be balanced."""
    command = [sys.executable, "-m", "k2stream.cli", "audit", "--json"]
    answer = subprocess.run(command, cwd=ROOT, env=os.environ | {"K2_HOME": str(home)}, capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(answer.stdout)
    assert report["balanced"], report
    return {name: sum(p[name] for p in report["partitions"]) for name in ("rows", "duplicates", "dead_letters")}


def tables(home: Path) -> tuple[Fingerprint, Fingerprint]:
    """Trades and gap events without what another publication changes."""
    settings = Settings(home=home)
    found = []
    for name, columns, without in (("trades", TRADES.names, OF_ONE_PUBLICATION), ("gaps", GAPS_COLUMNS, OF_ONE_ORIGIN)):
        reader = TableReader.open_reader(settings, name)
        snapshot = reader.load().current_snapshot()
        files = reader.files(snapshot.snapshot_id) if snapshot else []
        with Engine() as engine:
            found.append(table_fingerprint(engine, files, [c for c in columns if c not in without]))
        reader.close()
    return found[0], found[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of one uninterrupted demo, begun with --fresh on a home that held another."""
    home = tmp_path_factory.mktemp("whole")
    Home.open(home)
    (home / "demo.json").write_text('{"rows": 1, "seed": 5}')
    assert "WRONG" not in play(home, "--fresh")
    return home


def test_a_second_demo_on_the_same_home_adds_duplicates_and_no_row_or_gap(whole: Path) -> None:
    """The ledger shows every tick once more as a duplicate; the tables stay as they are."""
    before, ledger = tables(whole), audited(whole)
    play(whole)
    assert tables(whole) == before
    assert audited(whole) == ledger | {"duplicates": ledger["duplicates"] + ROWS}


def test_a_demo_killed_at_any_moment_and_run_again_ends_with_the_same_tables(whole: Path, tmp_path: Path) -> None:
    """SIGKILL for the whole process group, several times, at random moments; the last run finishes what is left."""
    moments = random.Random(11)
    for _ in range(3):
        demo = start(tmp_path)
        time.sleep(moments.uniform(1.5, 8.0))
        os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate(timeout=20)
    play(tmp_path)
    assert tables(tmp_path) == tables(whole)
    assert audited(tmp_path)["rows"] == ROWS


def test_faults_are_found_as_injected_and_refused_where_another_run_lies(tmp_path: Path) -> None:
    """Every effect of the mix is counted; on a home with trades the demo names --fresh."""
    said = play(tmp_path, "--faults", "--seed", "3")
    assert "dead letters, unknown_schema" in said
    assert "WRONG" not in said
    refused = start(tmp_path)
    sentence, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert sentence.startswith("k2: ")
    assert "--fresh" in sentence
