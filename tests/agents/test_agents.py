"""A running worker: its pages answer, its letters are counted, and asked to end it commits what it holds first."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
TOPIC = "market.equities.trades.asx"
ROWS = 2_000

pytestmark = pytest.mark.timeout(180)


def k2(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that must end well or say why it did not."""
    environment = os.environ | {"K2_HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


async def publish_bad(home: Path, values: list[bytes]) -> None:
    """Records whose bytes are no trade, in one partition."""
    sink = open_sink(Settings(home=home))
    await sink.send(TOPIC, 0, [Outgoing(key=b"BHP", value=value, timestamp_ms=1) for value in values])
    await sink.close()


def get(worker: WorkerProcess, page: str) -> tuple[int, str, bytes]:
    """Status, content type and body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}{page}", timeout=10) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, "", exc.read()


def until(worker: WorkerProcess, what: str, seconds: float = 60) -> dict[str, Any]:
    """The first state of which the expression's function holds."""
    deadline = time.monotonic() + seconds
    state: dict[str, Any] = {}
    while time.monotonic() < deadline:
        state = worker.state() or {}
        if state.get("started") and CONDITIONS[what](state):
            return state
        assert worker.exit_code() is None, worker.last_lines(20)
        time.sleep(0.1)
    raise AssertionError(f"{what} within {seconds} s: {json.dumps(state)[:3000]}")


CONDITIONS = {
    "caught up": lambda s: s["trades"].get("partitions") and s["trades"]["lag"] == 0 and sum(p["rows"] for p in s["trades"]["partitions"]) >= ROWS,
    "window holds all": lambda s: s["trades"]["window"]["rows"] >= ROWS,
    "letters counted": lambda s: sum(s["dead_letters_by_reason"].values()) >= 3,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log holds real trades."""
    home = tmp_path_factory.mktemp("agents") / "k2"
    done = k2(home, "feed", "recorded", "--rows", str(ROWS))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def worker(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker that committed them all."""
    log = tmp_path_factory.mktemp("logs") / "worker.log"
    with WorkerProcess(home=home, root=ROOT, log_path=log, environment={"K2_WINDOW_MS": "300"}) as worker:
        until(worker, "caught up")
        yield worker


def test_state_shows_sequences_filter_window_and_the_ledger_of_each_partition(worker: WorkerProcess) -> None:
    """What an operator needs to see: where each partition stands, and what the worker knows."""
    status, content_type, body = get(worker, "/state")
    state = json.loads(body)
    assert (status, content_type) == (200, "application/json")
    assert {"sequences", "filter", "window", "partitions", "lag", "since_start"} <= state["trades"].keys()
    assert state["trades"]["sequences"]["streams"] > 0
    ledger = {"topic", "partition", "start", "next", "rows", "duplicates", "dead_letters", "markers", "holes", "retired"}
    assert all(ledger <= p.keys() for p in state["trades"]["partitions"])
    assert {p["topic"] for p in state["trades"]["partitions"]} == {TOPIC, "market.crypto.trades.binance"}


def test_health_and_metrics_answer(worker: WorkerProcess) -> None:
    """Green while all is well, and figures in the text form that Prometheus reads."""
    assert json.loads(get(worker, "/healthz")[2]) == {"ok": True, "causes": {}}
    status, content_type, body = get(worker, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert b"k2" in body


def test_fausts_own_pages_stay_on(worker: WorkerProcess) -> None:
    """The front page and the table browser, as any Faust user expects them."""
    assert get(worker, "/")[0] == 200
    assert get(worker, "/table/")[0] == 200


async def test_letters_are_counted_by_reason(home: Path, worker: WorkerProcess) -> None:
    """Bad records become letters, and letters counts of all data types together, with the commit that they belong to."""
    await publish_bad(home, [b"\x07not ours", b"\x07nor this", b"\x00\x00\x00\x7f\xffrest"])
    state = until(worker, "letters counted")
    assert state["dead_letters_by_reason"] == state["trades"]["since_start"]["reasons"]
    assert sorted(state["dead_letters_by_reason"].values()) == [1, 2]


def test_a_worker_that_is_asked_to_end_commits_its_open_window(tmp_path: Path) -> None:
    """SIGTERM ends it within 10 s with code 0; the window that would have stayed open for minutes is in the table."""
    home = tmp_path / "k2"
    assert k2(home, "feed", "recorded", "--rows", str(ROWS)).returncode == 0
    with WorkerProcess(home=home, root=ROOT, log_path=tmp_path / "worker.log", environment={"K2_WINDOW_MS": "600000"}) as worker:
        state = until(worker, "window holds all")
        assert sum(p["rows"] for p in state["trades"]["partitions"]) == 0
        started = time.monotonic()
        assert worker.stop() == 0, worker.last_lines(20)
        assert time.monotonic() - started < 10
    report = json.loads(k2(home, "audit", "--json").stdout)
    assert report["balanced"]
    assert report["tables"] == {"trades": ROWS}
