"""Back-fill end to end: trades that a feed missed, asked back from the venue, become rows, and their gaps are filled."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from k2stream.decode.file_registry import FileRegistry
from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.feed import binance, coinbase, kraken
from k2stream.feed.frame import Row
from k2stream.feed.live import records_of
from k2stream.feed.publisher import publishing
from k2stream.feed.recording import shipped
from k2stream.home import Home
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.open_gaps import open_gaps
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.topics import TopicName
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.worker_process import WorkerProcess
from tests.integration.rest_site import Fault, RestVenue, answering

ROOT = Path(__file__).parents[2]
QUICK = {"K2_WINDOW_MS": "200", "K2_FSYNC": "false", "K2_PARTITIONS": "2"}
WAIT_SECONDS = 90

pytestmark = pytest.mark.timeout(240)


def recorded(exchange: str) -> list[Row]:
    """Trades as the feed reads them, each once."""
    ids = map(str, range(1 << 30))
    if exchange == "kraken":
        frames = [
            json.dumps({"channel": "trade", "data": [{**KRAKEN, "trade_id": n, "timestamp": f"2023-10-06T17:35:{n % 60:02d}.{n:06d}Z"}]}).encode()
            for n in range(100, 160)
        ]
    else:
        name = binance.RECORDED if exchange == "binance" else "frames/coinbase_exchange_2021-04-17.jsonl.gz"
        frames = shipped(name).splitlines()
    reader = {"binance": binance, "coinbase": coinbase, "kraken": kraken}[exchange]
    rows = [row for frame in frames for row in reader.read(frame, new_id=lambda: next(ids), now_us=1_700_000_000_000_000).trades]
    return list({(row["symbol"], row["source_sequence"]): row for row in rows}.values())


KRAKEN = {"symbol": "BTC/USD", "side": "buy", "price": 105944.20, "qty": 0.00027625, "ord_type": "limit"}


async def publish(home: Path, exchange: str, rows: Sequence[Row]) -> None:
    """Into the log of `home`, as a feed does."""
    Home.open(home)
    topic = TopicName("crypto", "trades", exchange)
    schema_id = FileRegistry(home / "schemas").register(topic.subject, avro_schema("trade_v2"))
    sink = EmbeddedSink(home / "log")
    await sink.create_topic(str(topic), 2, {})
    async with publishing(sink, str(topic), schema="trade_v2", schema_id=schema_id) as publisher:
        await publisher.records(records_of(list(rows), "trade_v2", schema_id))
    await sink.close()


def rows_held(home: Path) -> list[dict[str, Any]]:
    """All rows; none while there is no table yet."""
    settings = Settings(home=home)
    with closing(TableReader.open_reader(settings, "trades")) as reader:
        return list(reader.load().scan(selected_fields=("exchange", "symbol", "source_sequence", "vendor_data")).to_arrow().to_pylist())


def gaps_open(home: Path) -> dict[tuple[str, int, int], int]:
    """What is missing, by symbol and range."""
    with closing(TableReader.open_reader(Settings(home=home), "gaps")) as reader, Engine() as engine:
        snapshot = reader.load().current_snapshot()
        found = open_gaps(engine, reader.files(snapshot.snapshot_id) if snapshot else [])
    return {(g.symbol, g.first, g.last): g.missing for g in found}


async def until_rows(home: Path, count: int, worker: WorkerProcess) -> None:
    """Until the table holds so many."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        assert worker.exit_code() is None, worker.last_lines(30)
        if worker.state() and len(await asyncio.to_thread(rows_held, home)) >= count and (worker.state() or {})["trades"]["lag"] == 0:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{len(rows_held(home))} rows of {count}\n{worker.last_lines(30)}")


async def until_closed(home: Path, left: int) -> None:
    """Until so many gaps are open: events reach their table behind the rows."""
    async with asyncio.timeout(WAIT_SECONDS):
        while len(await asyncio.to_thread(gaps_open, home)) != left:  # noqa: ASYNC110 # a table tells nobody
            await asyncio.sleep(0.2)


async def k2(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, "K2_HOME": str(home), **QUICK, **environment}
    command = [sys.executable, "-m", "k2stream.cli", *arguments]
    return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=whole, capture_output=True, text=True, timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("rest"))


@asynccontextmanager
async def working(home: Path) -> AsyncIterator[WorkerProcess]:
    with WorkerProcess(home=home, root=ROOT, log_path=home.parent / "worker.log", environment=QUICK) as worker:
        await asyncio.to_thread(worker.wait_until_up)
        yield worker


async def test_gaps_of_all_venues_are_asked_back_and_filled(tmp_path: Path, certificate: Certificate) -> None:
    """Frames removed, gaps open, back-fill: gaps filled, each trade one row, what the venue lacks named; done twice it asks nobody."""
    home = tmp_path / "k2"
    traded = {exchange: recorded(exchange) for exchange in ("binance", "coinbase", "kraken")}
    first = traded["binance"][0]["source_sequence"]
    removed = {first + n for n in (*range(5, 30), 100, 102, *range(700, 1900))} | {110, 111, 150}
    absent = {first + 20, first + 1_000}
    for exchange, rows in traded.items():
        await publish(home, exchange, [row for n, row in enumerate(rows) if row["source_sequence"] not in removed and not (exchange == "coinbase" and n == 50)])
    by_symbol: dict[str, list[Row]] = {}
    for row in sorted((row for rows in traded.values() for row in rows), key=lambda row: row["source_sequence"]):
        by_symbol.setdefault(row["symbol"], []).append(row)
    hole = traded["coinbase"][50]
    is_gap = {hole["source_sequence"] - 1, hole["source_sequence"] + 1} <= {row["source_sequence"] for row in by_symbol[hole["symbol"]]}
    assert is_gap, "the trade left out has neighbours"
    everything = sum(map(len, traded.values()))
    venue = RestVenue(by_symbol, absent=absent, faults={1: Fault(503), 3: Fault(429, {"Retry-After": "1"})}, key="secret")
    async with answering(venue, certificate) as rest, working(home) as worker:
        where = {f"K2_{name.upper()}_REST_URL": rest.url for name in traded}
        settings = {**where, "K2_FEED_CA_FILE": str(certificate.authority), "K2_BINANCE_API_KEY": "secret"}
        await until_rows(home, everything - len(removed) - 1, worker)
        await until_closed(home, 7)
        looked = await k2(home, "backfill", "binance", "--dry-run", **settings)
        assert (looked.returncode, venue.asked) == (1, []), looked.stderr
        assert "1,227 trades are missing in 4 open gaps" in looked.stdout
        said = [await k2(home, "backfill", exchange, **settings) for exchange in traded]
        assert [done.returncode for done in said] == [0, 0, 0], [done.stdout + done.stderr for done in said]
        assert f"1 that the venue does not have ({first + 20})" in said[0].stdout
        await until_rows(home, everything - len(absent), worker)
        await until_closed(home, 2)
        questions = len(venue.asked)
        again = await k2(home, "backfill", "binance", **settings)
        assert (again.returncode, len(venue.asked)) == (0, questions), "what the venue does not have is not asked for again"
        assert worker.stop() == 0, worker.last_lines(30)
    held = rows_held(home)
    keys = Counter((row["symbol"], row["source_sequence"]) for row in held)
    assert (len(keys), set(keys.values())) == (everything - len(absent), {1})
    asked_back = {row["source_sequence"] for row in held if dict(row["vendor_data"] or ()).get("feed") == "backfill"}
    assert asked_back == removed - absent | {hole["source_sequence"]}
    assert set(gaps_open(home).values()) == {1}
    audited = await k2(home, "audit")
    assert audited.returncode == 0, audited.stdout
