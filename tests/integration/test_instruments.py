"""Reference data from its topic to table and look-up: updates, ends, deaths in between, and rows of symbols that nobody declared."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import UUID

import pytest

from k2stream.feed import asx
from k2stream.feed.avro import encode_one
from k2stream.feed.recording import MessageIds
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics, publish_recorded
from k2stream.query.engine import Engine
from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.worker_process import WorkerProcess
from tests.services.start_site import k2, until

ROOT = Path(__file__).parents[2]
TOPIC = "market.equities.reference_data.asx"
RIO, BHP = "7458", "7078"

pytestmark = pytest.mark.timeout(600)  # three workers one after the other


@contextmanager
def worker(home: Path, **environment: str) -> Iterator[WorkerProcess]:
    with WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment={"K2_WINDOW_MS": "200", **environment}) as w:
        yield w


def looked_up(w: WorkerProcess, symbol: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.port}/instruments?exchange=ASX&symbol={symbol}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except (HTTPError, OSError):
        return {}
    return found


def table(home: Path) -> dict[str, dict[str, Any]]:
    """Rows by company; one that stands twice fails."""
    with closing(TableReader.open_reader(Settings(home=home), "instruments")) as reader, Engine() as engine:
        files = reader.files(reader.head().snapshot_id or 0)
        rows = engine.ask("SELECT * FROM read_parquet($files, hive_partitioning = false)", files=files).to_pylist() if files else []
    assert len({r["company_id"] for r in rows}) == len(rows)
    return {r["company_id"]: r for r in rows}


def say(home: Path, *records: tuple[str, Mapping[str, Any] | None]) -> None:
    """Publish records of companies (None: the end) to the topic, which exists."""
    settings = Settings(home=home)
    schema_id = prepare_topics(settings, [TOPIC])[TOPIC]
    known = {r["company_id"]: r for r in asx.instruments(ids=MessageIds(UUID(int=5)), now_us=1).rows.to_pylist()}

    async def publish() -> None:
        sink = open_sink(settings)
        for company, changed in records:
            value = None if changed is None else encode_one({**known[company], **changed}, schema="reference_data_v2", schema_id=schema_id)
            await sink.send(TOPIC, 0, [Outgoing(company.encode(), value, 1_700_000_000_000)])
        await sink.close()

    asyncio.run(publish())


def taken(w: WorkerProcess) -> int:
    return sum(p["next"] for p in (w.state() or {}).get("reference_data", {}).get("partitions", ()))


def assert_audited(home: Path) -> None:
    done = k2(home, "audit", "--json", environment={})
    assert done.returncode == 0, done.stdout


def test_four_instruments_an_update_and_an_end_are_seen_in_table_and_look_up(tmp_path: Path) -> None:
    """The newest record wins; a record without a value ends the listing and leaves the row, in both."""
    publish_recorded(Settings(home=tmp_path), "instruments")
    with worker(tmp_path) as w:
        until(w, lambda: looked_up(w, "RIO").get("company_name") == "RIO TINTO LTD", "in the look-up")
        assert set(table(tmp_path)) == {"3153", BHP, "7181", RIO}
        say(tmp_path, (BHP, {"company_name": "BHP GROUP"}), (RIO, None))
        until(w, lambda: looked_up(w, "BHP")["company_name"] == "BHP GROUP" and looked_up(w, "RIO")["delisted_at"], "update and end in the look-up")
        rows = table(tmp_path)
        assert rows[BHP]["company_name"] == "BHP GROUP"
        assert (rows[RIO]["symbol"], rows[RIO]["is_active"], rows[RIO]["delisted_at"].timestamp()) == ("RIO", False, 1_700_000_000)
        assert looked_up(w, "NONE") == {}
        assert (w.state() or {})["reference_data"]["since_start"]["dead_letters"] == 0
    assert_audited(tmp_path)
    with worker(tmp_path) as w:
        until(w, lambda: looked_up(w, "RIO").get("is_active") is False, "a new worker knows them from the changelog or the table")


def test_a_worker_killed_behind_its_commit_loses_and_doubles_no_change(tmp_path: Path) -> None:
    """The next worker ends with the newest of each in table and look-up, and the ledger adds up; test_replace.py dies at the other steps."""
    publish_recorded(Settings(home=tmp_path), "instruments")
    with worker(tmp_path) as w:
        until(w, lambda: taken(w) == 4, "all four taken")
    say(tmp_path, (BHP, {"company_name": "BHP GROUP"}), (RIO, None), ("7181", {"symbol": "DVX"}))
    with worker(tmp_path, K2_CRASH_AT="3.after") as w:
        assert w.wait(300) != 0
    with worker(tmp_path) as w:
        until(w, lambda: taken(w) == 7 and looked_up(w, "DVX") and not looked_up(w, "DVN") and looked_up(w, "RIO").get("delisted_at"), "all changes in both")
    rows = table(tmp_path)
    assert (len(rows), rows[BHP]["company_name"], rows[RIO]["is_active"], rows["7181"]["symbol"]) == (4, "BHP GROUP", False, "DVX")
    assert_audited(tmp_path)


def test_symbols_without_an_instrument_are_counted_and_kept(tmp_path: Path) -> None:
    """A warning for each symbol, never an error: the trades of a symbol that is not declared are rows like all others."""
    settings = Settings(home=tmp_path)
    publish_recorded(settings, "trades", rows=300)
    say(tmp_path, (BHP, {}))
    with worker(tmp_path) as w:
        until(w, lambda: (w.state() or {}).get("unknown_instruments"), "counted")
        unknown = (w.state() or {})["unknown_instruments"]
        assert all(key.startswith("trades ASX/") for key in unknown), "Binance has no topic of reference data"
        assert "trades ASX/BHP" not in unknown
        assert (w.state() or {})["trades"]["since_start"]["dead_letters"] == 0
        with urllib.request.urlopen(f"http://127.0.0.1:{w.port}/metrics", timeout=10) as answer:
            assert 'k2_unknown_instrument_rows_total{data_type="trades"}' in answer.read().decode()
