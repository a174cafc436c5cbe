"""Two feeds of one venue, each with a topic of its own, read by two workers of a group on a real broker."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from k2stream.audit import audit_lake
from k2stream.chaos.trades import names_on
from k2stream.checkout import find_root
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.dev.service import Service
from k2stream.errors import LakeError
from k2stream.feed.binance import read
from k2stream.feed.frame import Row
from k2stream.feed.live import records_of
from k2stream.feed.publisher import publishing
from k2stream.lake.offsets import Counts
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics
from k2stream.query.engine import Engine
from k2stream.query.feeds import feeds
from k2stream.query.open_gaps import missing_numbers, open_gaps
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.ends import ends_of
from k2stream.transport.open import open_sink
from k2stream.worker_group import WorkerGroup, partitions_of
from tests.integration.venue_site import frames_from

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(600)]

TOPICS = {"a": "market.crypto.trades.binance", "b": "market.crypto.trades.binance-b"}
PARTITIONS = 4
SYMBOLS = names_on(PARTITIONS, each=1)
NUMBERS = range(1, 1_201)
LACKS: Mapping[str, Callable[[int], bool]] = {"a": lambda n: n % 7 == 1, "b": lambda n: n % 5 == 2}
NOBODYS = [n for n in NUMBERS if all(lacks(n) for lacks in LACKS.values())]
CHUNK = 20
BEHIND_CHUNKS = 6
"""So much later the second feed reports what the first did, and from the kill on the first what the second did."""
HALF = 30
"""Chunks until nothing more is published before the kill."""
WAIT_SECONDS = 180.0


@pytest.fixture
def group(fresh_kafka: str, redis: Service, tmp_path: Path) -> Iterator[WorkerGroup]:
    """Workers of both topics; windows are small, so that most second reports come in another one than the first."""
    environment = {
        **redis.exports(),
        "K2_BROKER": f"k2kafka://{fresh_kafka}",
        "K2_APP_ID": tmp_path.name,
        "K2_TOPICS": "exchange:binance",
        "K2_PARTITIONS": str(PARTITIONS),
        "K2_SESSION_TIMEOUT_MS": "6000",
        "K2_WINDOW_ROWS": "500",
        "K2_WINDOW_MS": "300",
        "K2_FSYNC": "false",
    }
    with WorkerGroup(tmp_path, environment, root=find_root()) as made:
        yield made


class Feeds:
    """Both feeds in one thread: chunk by chunk, in an order of their own each, in turns that change when a worker dies.

    In a window the first topic's rows come first, so what the second feed says first must be committed before the other says it too: once,
    when it is ahead, the other waits for that. However slow the machine is, each was first for a while.
    """

    def __init__(self, settings: Settings, group: WorkerGroup) -> None:
        self._settings, self._group = settings, group
        self._schema_id = prepare_topics(settings, list(TOPICS.values()))[TOPICS["a"]]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()), daemon=True)
        self._dice = Random(1)
        self.killed = threading.Event()
        self.published: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    async def _publish(self) -> None:
        sink, chunks, has_waited = open_sink(self._settings), len(NUMBERS) // CHUNK, False
        done = dict.fromkeys(TOPICS, 0)
        try:
            while any(count < chunks for count in done.values()):
                first, second = ("b", "a") if self.killed.is_set() else ("a", "b")
                feed = first if done[first] < chunks and done[first] - done[second] < BEHIND_CHUNKS else second
                if feed == "a" == second and not has_waited:
                    has_waited = True
                    await asyncio.to_thread(self._wait_until_taken, first)
                async with publishing(sink, TOPICS[feed], schema="trade_v2", schema_id=self._schema_id) as publisher:
                    await publisher.records(records_of(self._rows(feed, done[feed]), "trade_v2", self._schema_id))
                done[feed] += 1
                if max(done.values()) >= HALF:
                    await asyncio.to_thread(self.killed.wait, WAIT_SECONDS)
        finally:
            await sink.close()

    def _wait_until_taken(self, feed: str) -> None:
        ends = ends_of(self._settings, [TOPICS[feed]])
        until(lambda: all(self._group.positions().get(tp, 0) >= end for tp, end in ends.items()), self._group, "not taken of the feed that is ahead")

    def _rows(self, feed: str, chunk: int) -> list[Row]:
        """What a feed saw of a chunk, mixed up."""
        frames = frames_from(NUMBERS[chunk * CHUNK], CHUNK)
        trades = [t for frame in frames for t in read(frame, new_id=self._dice.randbytes(8).hex, now_us=time.time_ns() // 1000).trades]
        rows = [{**t, "symbol": s, "vendor_data": {"feed": feed}} for t in trades if not LACKS[feed](t["source_sequence"]) for s in SYMBOLS]
        self._dice.shuffle(rows)
        self.published[feed] += len(rows)
        return rows


def until(holds: Callable[[], bool], group: WorkerGroup, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"{what}\n{group.last_lines(15)}"
        time.sleep(0.1)


def owned(group: WorkerGroup, number: int) -> set[TopicPartition]:
    return {TopicPartition(p["topic"], p["partition"]) for p in partitions_of(group.state(number))}


def is_dealt_out(group: WorkerGroup) -> bool:
    """Half of the partitions each, equal numbers of both topics together."""
    halves = [owned(group, number) for number in group.running()]
    twins = [{tp.partition for tp in half if tp.topic == topic} for half in halves for topic in TOPICS.values()]
    return len(set().union(*halves)) == 2 * PARTITIONS and all(map(len, halves)) and twins[0] == twins[1] and twins[2] == twins[3]


def missing(settings: Settings) -> int:
    """How many numbers are in open gaps; none while there is no table of gaps."""
    try:
        with closing(TableReader.open_reader(settings, "gaps")) as reader, Engine() as engine:
            return sum(gap.missing for gap in open_gaps(engine, reader.newest_files()))
    except LakeError:
        return 0


def test_two_feeds_are_one_stream_though_a_worker_is_killed(group: WorkerGroup) -> None:
    """Every trade is one row, the ledger by topic says who brought what, and only what both lack is a gap."""
    settings = group.settings()
    publisher = Feeds(settings, group)
    for number in (group.start(), group.start()):
        group.worker(number).wait_until_up(WAIT_SECONDS)
    until(lambda: is_dealt_out(group), group, "not dealt out")
    victims = owned(group, 1)
    publisher.start()
    until(lambda: all(group.positions().get(tp, 0) > 0 for tp in victims), group, "nothing is committed of the worker to be killed")
    group.kill(1)
    publisher.killed.set()
    publisher.join()

    group.wait_until_caught_up(ends_of(settings, list(TOPICS.values())), seconds=WAIT_SECONDS)
    until(lambda: missing(settings) == len(SYMBOLS) * len(NOBODYS), group, "not as much is missing as both lack")
    assert group.stop(0) == 0, group.last_lines(30)

    with closing(TableReader.open_reader(settings, "trades")) as reader, closing(reader.beside("gaps")) as gaps, Engine() as engine:
        rows = reader.load().scan(selected_fields=("symbol", "source_sequence", "topic", "vendor_data")).to_arrow().to_pylist()
        files, vector = reader.newest_files(), reader.head().vector
        said = feeds(engine, files, gaps.newest_files(), vector).to_pylist()
        lacked = Counter(
            (gap.symbol, n)
            for gap in open_gaps(engine, gaps.newest_files())
            for first, last in missing_numbers(engine, files, gap)
            for n in range(first, last + 1)
        )
    assert lacked == Counter((symbol, n) for symbol in SYMBOLS for n in NOBODYS)
    assert Counter((row["symbol"], row["source_sequence"]) for row in rows) == Counter((s, n) for s in SYMBOLS for n in NUMBERS if n not in set(NOBODYS))
    brought = Counter(dict(row["vendor_data"])["feed"] for row in rows)
    for feed, topic in TOPICS.items():
        counts = sum((entry.counts for tp, entry in vector.items() if tp.topic == topic), Counts())
        assert (counts.rows, counts.rows + counts.duplicates) == (brought[feed], publisher.published[feed])
        assert [(line["feed"], line["rows"], line["topic_duplicates"]) for line in said if line["topic"] == topic] == [(feed, counts.rows, counts.duplicates)]
        assert min(counts.rows, counts.duplicates) > len(SYMBOLS) * HALF, "each was first for a while"
    assert audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings)).problems == ()
