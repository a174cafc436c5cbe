"""Two feeds of one venue: one row a trade whichever of them lives, and it is known which of them saved what."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from k2stream.decode.file_registry import FileRegistry
from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.errors import FeedError, LakeError, SettingsError
from k2stream.feed import binance
from k2stream.feed.live import records_of
from k2stream.feed.publisher import publishing
from k2stream.feed.spool import Spool
from k2stream.feed.venue import BINANCE
from k2stream.home import Home
from k2stream.lake.offsets import Counts
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.gaps import gaps_now
from k2stream.records import TopicPartition
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.topics import TopicName, redundant_topics, require_co_partitioned, resolve
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.worker_process import WorkerProcess
from tests.integration.test_backfill import QUICK, ROOT, gaps_open, k2, rows_held, working
from tests.integration.test_live_feed import numbers_of
from tests.integration.venue_site import Behaviour, FaultyVenue, drop, frames_from, listening, reading, stay, until

TOPIC = "market.crypto.trades.binance"

pytestmark = pytest.mark.timeout(240)


class Market:
    """Everybody who is connected gets what is traded now, as on a real venue: nothing of what was traded before."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self.began = asyncio.get_running_loop().time()
        self.ends = 1 << 60

    @property
    def number(self) -> int:
        """Of the newest trade."""
        return min(int((asyncio.get_running_loop().time() - self.began) * self.per_second), self.ends)

    def close(self) -> int:
        """No more trades; the number of the last."""
        self.ends = self.number + self.per_second // 4
        return self.ends

    async def behave(self, venue: FaultyVenue, socket: ServerConnection) -> None:
        at = self.number
        with suppress(ConnectionClosed):
            while at < self.ends:
                for frame in frames_from(at + 1, self.number - at):
                    await socket.send(frame, text=True)
                    at += 1
                await asyncio.sleep(0.01)
        await stay(venue, socket)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("venue"))


@asynccontextmanager
async def feeding(home: Path, venue: FaultyVenue, certificate: Certificate, name: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`k2 feed binance` in a process of its own."""
    settings = {"K2_HOME": str(home), "K2_FEED_CA_FILE": str(certificate.authority), "K2_BINANCE_URLS": venue.url, "K2_FEED_NAME": name, **QUICK, **environment}
    command = [sys.executable, "-m", "k2stream.cli", "feed", "binance", "--symbols", "BTCUSDT"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env={**os.environ, **settings}, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def records(home: Path, topic: str) -> int:
    with suppress(Exception):
        log = EmbeddedLog(home / "log")
        try:
            return sum(log.bounds(TopicPartition(topic, p))[1] for p in range(2)) if topic in log.topics() else 0
        finally:
            log.close()
    return 0


@pytest.mark.parametrize("own_topic", [False, True], ids=["one topic", "two topics"])
async def test_a_killed_feed_is_not_missed(tmp_path: Path, certificate: Certificate, own_topic: bool) -> None:
    """One of two is killed -9 in the middle of trading: no gap, no loss, one row a trade; the answer names who was first."""
    home, second = tmp_path / "k2", f"{TOPIC}-b" if own_topic else TOPIC
    market = Market(100)
    async with listening(FaultyVenue([market.behave]), certificate) as venue, feeding(home, venue, certificate, "a") as first:
        await eventually(lambda: records(home, TOPIC) > 20)
        spare = {"K2_FEED_OWN_TOPIC": "true"} if own_topic else {}
        async with working(home) as worker, feeding(home, venue, certificate, "b", **spare):
            await until(lambda: venue.connections == 2, seconds=60)
            joined = records(home, second)
            await eventually(lambda: records(home, second) > joined + 150)
            first.send_signal(signal.SIGKILL)
            killed_at = market.number
            await until(lambda: market.number > killed_at + 100, seconds=60)
            last = market.close()
            await eventually(lambda: worker_has(worker, home, last))
            assert worker.stop() == 0, worker.last_lines(30)
    held = rows_held(home)
    numbers = Counter(row["source_sequence"] for row in held)
    assert set(numbers.values()) == {1}
    assert set(numbers) == set(range(min(numbers), last + 1)), "none is missing"
    assert gaps_open(home) == {}
    said = json.loads((await k2(home, "query", "feeds", "--format", "json")).stdout)
    by_feed = {line["feed"]: line for line in said}
    assert set(by_feed) == {"a", "b"}
    assert sum(line["rows"] for line in said) == len(numbers)
    assert {by_feed["a"]["topic"], by_feed["b"]["topic"]} == {TOPIC, second}
    assert by_feed["b"]["rows"] >= 90, "what came after the kill is its own"
    assert max(line["topic_duplicates"] for line in said) > 50, "both reported the trades before"
    assert not [flags for flags in flags_held(home) if "duplicate" in flags], "and nobody is told of each"
    audited = await k2(home, "audit")
    assert audited.returncode == 0, audited.stdout


def flags_held(home: Path) -> list[list[str]]:
    """Of each flagged record."""
    with closing(TableReader.open_reader(Settings(home=home), "quality")) as reader:
        return list(reader.load().scan(selected_fields=("flags",)).to_arrow()["flags"].to_pylist())


def has_table(home: Path) -> bool:
    with suppress(LakeError):
        rows_held(home)
        return True
    return False


async def eventually(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for what takes a while to find out; the market goes on meanwhile."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 # files of other processes
            await asyncio.sleep(0.3)


def worker_has(worker: WorkerProcess, home: Path, last: int) -> bool:
    assert worker.exit_code() is None, worker.last_lines(30)
    trades = (worker.state() or {}).get("trades", {})
    return trades.get("lag") == 0 and any(row["source_sequence"] == last for row in rows_held(home))


async def test_disconnects_reach_the_table_as_rows_and_gaps_with_their_cause(tmp_path: Path, certificate: Certificate) -> None:
    """Counted from the socket to the table: everything that was received is one row; what was traded meanwhile is a gap of a reconnect."""
    home, behaviours, first = tmp_path / "k2", [], 1
    for n in range(60):
        behaviours.append(_play(first, 1 + n % 7))
        first += 1 + n % 7 + n % 3  # up to two trades are made while nobody listens
    behaviours.append(_play(first, 5, then_stay=True))
    schema_id = registered(home)
    async with (
        working(home) as worker,
        listening(FaultyVenue(behaviours), certificate) as venue,
        reading(BINANCE, venue.url, home, authority=certificate.authority, topic=TOPIC, schema_id=schema_id) as feed,
    ):
        await until(lambda: venue.connections == 61, seconds=90)
        await eventually(lambda: worker_has(worker, home, first + 4))
        assert worker.stop() == 0, worker.last_lines(30)
    assert {row["source_sequence"] for row in rows_held(home)} == numbers_of(feed.received)
    numbers = [row["source_sequence"] for row in rows_held(home)]
    assert len(numbers) == len(set(numbers))
    assert (await k2(home, "audit")).returncode == 0
    looked = await k2(home, "backfill", "binance", "--dry-run", "--cause", "upstream")
    assert looked.returncode == 0, looked.stdout
    missing = set(range(min(numbers), first + 5)) - set(numbers)
    assert sum(gaps_open(home).values()) == len(missing) > 30
    with closing(TableReader.open_reader(Settings(home=home), "trades")) as trades, closing(trades.beside("gaps")) as gaps, Engine() as engine:
        counts = sum((entry.counts for entry in trades.head().vector.values()), Counts())
        assert {gap["cause"] for gap in gaps_now(engine, gaps.newest_files()).to_pylist()} == {"feed_reconnect"}
    assert (counts.dead_letters, counts.markers) == (0, feed.gaps)


async def test_two_topics_that_each_lack_something_are_whole_together_whenever_the_worker_dies(tmp_path: Path) -> None:
    """Every number is in one of them at least, some in both; a worker killed -9 between windows starts anew: one row a number, no gap left open."""
    home = tmp_path / "k2"
    schema_id = registered(home)
    rows = [t for frame in frames_from(1, 1_200) for t in binance.read(frame, new_id=Random(1).randbytes(8).hex, now_us=1_700_000_000_000_000).trades]
    sink = EmbeddedSink(home / "log")
    for topic in (TOPIC, f"{TOPIC}-b"):
        await sink.create_topic(topic, 2, {})
    windows = {"K2_WINDOW_ROWS": "100"}
    for start in range(0, 1_200, 600):
        worker = WorkerProcess(home=home, root=ROOT, log_path=tmp_path / "worker.log", environment={**QUICK, **windows})
        try:
            for first in range(start, start + 600, 30):
                for topic, lacks in ((TOPIC, 1), (f"{TOPIC}-b", 2)):
                    held = [row for row in rows[first : first + 30] if row["source_sequence"] % 5 != lacks]
                    async with publishing(sink, topic, schema="trade_v2", schema_id=schema_id) as publisher:
                        await publisher.records(records_of(held, "trade_v2", schema_id))
            await eventually(lambda start=start: has_table(home) and len(rows_held(home)) > start + 50)  # type: ignore[misc] # lambda default
        finally:
            worker.kill()
    await sink.close()
    async with working(home) as worker:
        await eventually(lambda: (worker.state() or {}).get("trades", {}).get("lag") == 0 and len(rows_held(home)) == 1_200 and not gaps_open(home))
        assert worker.stop() == 0, worker.last_lines(30)
    assert Counter(row["source_sequence"] for row in rows_held(home)) == Counter(range(1, 1_201))
    assert (await k2(home, "audit")).returncode == 0


def registered(home: Path) -> int:
    """A new home that knows the contract of trades; its id."""
    Home.open(home)
    return FileRegistry(home / "schemas").register(TopicName.parse(TOPIC).subject, avro_schema("trade_v2"))


def _play(first: int, count: int, *, then_stay: bool = False) -> Behaviour:
    async def behave(venue: FaultyVenue, socket: ServerConnection) -> None:
        for frame in frames_from(first, count):
            await socket.send(frame, text=True)
        await asyncio.sleep(0.03)  # what was sent is read before the cut
        await (stay if then_stay else drop)(venue, socket)

    return behave


def test_topics_of_a_foreign_writer_are_redundant_with_none() -> None:
    """A vector made by `k2 adopt` names what stood in the rows, of whatever form; a worker goes on with it."""
    twins = {"market.crypto.trades.binance", "market.crypto.trades.binance-b"}
    assert redundant_topics([*twins, "elsewhere", "market.crypto.trades.kraken"]) == twins


def test_redundant_topics_of_unequal_partitions_are_refused() -> None:
    """A trade that both report could become two rows: both are named, and the way out."""
    with pytest.raises(SettingsError, match=r"trades.binance has 8 partitions and market.crypto.trades.binance-b has 4.*k2 topics apply"):
        require_co_partitioned({TOPIC: 8, f"{TOPIC}-b": 4})
    require_co_partitioned({TOPIC: 8, f"{TOPIC}-b": 8, "market.crypto.trades.kraken": 4, "market.crypto.quotes.binance": 2})


async def test_a_worker_refuses_redundant_topics_that_do_not_fit(tmp_path: Path) -> None:
    """With one sentence, before it reads anything."""
    Home.open(tmp_path / "k2")
    log = EmbeddedLog(tmp_path / "k2" / "log")
    log.create_topic(TOPIC, 2)
    log.create_topic(f"{TOPIC}-b", 3)
    log.close()
    with WorkerProcess(home=tmp_path / "k2", root=ROOT, log_path=tmp_path / "worker.log", environment=QUICK) as worker:
        assert await asyncio.to_thread(worker.wait, 60) == 1
        assert f"{TOPIC} has 2 partitions and {TOPIC}-b has 3" in worker.last_lines(3)


def test_an_exchange_means_all_its_topics() -> None:
    """And a topic means only itself."""
    existing = [TOPIC, f"{TOPIC}-b", "market.crypto.trades.binanceus", "market.crypto.trades.kraken"]
    assert resolve(["exchange:binance"], existing, "trades") == [TOPIC, f"{TOPIC}-b"]
    assert resolve([TOPIC], existing, "trades") == [TOPIC]
    assert (TopicName.parse(f"{TOPIC}-b").venue, TopicName.parse(TOPIC).venue) == ("binance", "binance")


def spools(folder: Path) -> Iterator[Spool]:
    while True:
        yield Spool(folder / "feed.spool", memory_bytes=1, disk_bytes=1)


def test_two_feeds_of_one_name_do_not_share_a_spool(tmp_path: Path) -> None:
    """They would write over each other's records."""
    made = spools(tmp_path)
    first = next(made)
    with pytest.raises(FeedError, match="K2_FEED_NAME"):
        next(made)
    first.close()
    next(spools(tmp_path)).close()
