"""Quotes keep what trades keep: one row a record, the ledger balanced, whoever dies in between; and cost nothing where there are none."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from k2stream.lake.reader import TableReader
from k2stream.playback import RECORDED, publish_recorded
from k2stream.query.engine import Engine
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess
from tests.services.start_site import k2, until

ROOT = Path(__file__).parents[2]
ROWS = 4_000

pytestmark = pytest.mark.timeout(600)  # two workers one after the other


@contextmanager
def worker(home: Path, **environment: str) -> Iterator[WorkerProcess]:
    with WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment={"K2_WINDOW_MS": "200", **environment}) as w:
        yield w


def rows_of(w: WorkerProcess, data_type: str = "quotes") -> int:
    return sum(p["rows"] for p in (w.state() or {}).get(data_type, {}).get("partitions", ()))


def is_caught_up(w: WorkerProcess, rows: int) -> Callable[[], bool]:
    return lambda: rows_of(w) == rows and (w.state() or {})["quotes"]["lag"] == 0


def audited(home: Path) -> dict[str, object]:
    done = k2(home, "audit", "--json", environment={})
    report: dict[str, object] = json.loads(done.stdout)
    assert (done.returncode, report["balanced"]) == (0, True), report
    return report


def distinct(home: Path) -> tuple[int, int]:
    """Rows and different quotes of the table."""
    with closing(TableReader.open_reader(Settings(home=home), "quotes")) as reader, Engine() as engine:
        files = reader.files(reader.head().snapshot_id or 0)
        found = engine.ask("SELECT count(*) AS rows, count(DISTINCT quote_id) AS ids FROM read_parquet($files)", files=files).to_pylist()[0]
    return found["rows"], found["ids"]


def test_every_recorded_quote_becomes_one_row_though_a_worker_dies_behind_its_commit(tmp_path: Path) -> None:
    """169,629 in, as many rows, as many ids: the next worker goes on from the vector, and the audit agrees."""
    publish_recorded(Settings(home=tmp_path), "quotes")
    with worker(tmp_path, K2_CRASH_AT="3.after") as w:
        assert w.wait(300) != 0
    with worker(tmp_path) as w:
        until(w, is_caught_up(w, RECORDED["quotes"]), "caught up")
    assert audited(tmp_path)["tables"] == {"quotes": 169_629}
    assert distinct(tmp_path) == (169_629, 169_629)


def test_trades_and_quotes_share_a_worker(tmp_path: Path) -> None:
    """Each has its table, ledger and counts; without a topic of quotes nothing is made for them, and their first is taken up while trades run."""
    settings = Settings(home=tmp_path)
    publish_recorded(settings, "trades", rows=ROWS)
    with worker(tmp_path) as w:
        until(w, lambda: rows_of(w, "trades") == ROWS, "trades read")
        assert "quotes" not in (w.state() or {})
        assert not list((tmp_path / "warehouse").rglob("quotes"))
        for _ in range(2):  # the second time they are duplicates by their own id
            publish_recorded(settings, "quotes", rows=ROWS)
        until(w, lambda: sum(p["duplicates"] for p in (w.state() or {}).get("quotes", {}).get("partitions", ())) == ROWS, "quotes read")
        until(w, is_caught_up(w, ROWS), "no quote twice")
        state = w.state() or {}
    assert state["causes"] == {}
    assert state["commits"].keys() >= {"trades", "quotes", "gaps"}
    assert audited(tmp_path)["tables"] == {"trades": ROWS, "quotes": ROWS}
    assert distinct(tmp_path) == (ROWS, ROWS)
