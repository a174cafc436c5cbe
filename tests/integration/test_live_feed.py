"""A live feed on a venue that misbehaves: what was received reaches the log, whatever the connection, the log or the frames do."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from k2stream import live_feed
from k2stream.clock import SystemClock
from k2stream.decode.decoder import Decoder
from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.errors import FeedError, TransportError
from k2stream.feed import binance, coinbase
from k2stream.feed.live import LiveFeed
from k2stream.feed.publisher import MARKER, TIME_US
from k2stream.feed.recording import shipped
from k2stream.feed.spool import Spool
from k2stream.feed.venue import BINANCE, COINBASE, KRAKEN, Venue
from k2stream.records import Batch, Record, TopicPartition
from k2stream.rows import AvroSchema, avro_schema
from k2stream.settings import Settings
from k2stream.symbols import Pair
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import Outgoing
from tests.integration.venue_site import (
    SCHEMA_ID,
    TOPIC,
    Behaviour,
    FaultyVenue,
    close,
    drop,
    frames_from,
    half_open,
    listening,
    play,
    quick,
    reading,
    stay,
    until,
)

pytestmark = pytest.mark.timeout(300)


class OneSchema:
    """A registry that knows trade_v2 under one id."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return avro_schema("trade_v2") if schema_id == SCHEMA_ID else None


def batches(folder: Path) -> list[Batch]:
    log = EmbeddedLog(folder / "log")
    found = [log.read(TopicPartition(TOPIC, p), 0, 1 << 30) for p in range(2)]
    log.close()
    return [Batch(TOPIC, p, 0, b[-1].last_offset + 1, tuple(b), 0) for p, b in enumerate(found) if b]


def numbers_in_log(folder: Path) -> Counter[int]:
    """Trades of the log by their number."""
    decoder = Decoder("trade_v2", OneSchema())
    return Counter(n for batch in batches(folder) for n in decoder.decode(batch).rows["source_sequence"].to_pylist())


def records_in_log(folder: Path) -> list[Record]:
    return [record for batch in batches(folder) for each in batch.log_batches for record in each.records()]


def numbers_of(received: list[bytes]) -> set[int]:
    """Trades of received frames by their number."""
    return {t["source_sequence"] for frame in received for t in binance.read(frame, new_id=str, now_us=0).trades}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("venue"))


async def test_recorded_frames_over_tls_reach_the_log_once_each(tmp_path: Path, certificate: Certificate) -> None:
    """2,001 trades, and the path asks for them."""
    frames = shipped(binance.RECORDED).splitlines()
    async with listening(FaultyVenue([play(frames)]), certificate) as venue, reading(BINANCE, venue.url, tmp_path, authority=certificate.authority) as feed:
        await until(lambda: feed.live.counts.durable == 2002)
    assert venue.paths == ["/stream?streams=btcusdt@trade"]
    numbers = numbers_in_log(tmp_path)
    assert (len(numbers), set(numbers.values())) == (2001, {1})


async def test_rows_say_what_is_traded_as_the_file_of_symbols_does(tmp_path: Path) -> None:
    """Not as the symbol looks: BTCUSDT could be read as BTCU for SDT."""
    pairs = {"BTCUSDT": Pair("BTC", "USDT")}
    async with listening(FaultyVenue([play(list(frames_from(1, 3)))])) as venue, reading(BINANCE, venue.url, tmp_path, pairs=pairs) as feed:
        await until(lambda: len(feed.received) == 3)
        await feed.live.settle()
    (rows,) = (Decoder("trade_v2", OneSchema()).decode(batch).rows for batch in batches(tmp_path))
    said = [dict(vendor) for vendor in rows["vendor_data"].to_pylist()]
    assert {(v["base_asset"], v["quote_asset"], v["pair"]) for v in said} == {("BTC", "USDT", "BTC/USDT")}
    assert set(rows["currency"].to_pylist()) == {"USDT"}


async def test_200_random_disconnects_lose_nothing_that_was_received(tmp_path: Path, certificate: Certificate) -> None:
    """Counted end to end; and each time without a connection is marked, so that a gap gets its cause."""
    random, first, behaviours = Random(7), 1, []
    for _ in range(200):
        count = random.randrange(1, 30)
        behaviours.append(play(list(frames_from(first, count)), then=random.choice([drop, close])))
        first += count
    behaviours.append(play(list(frames_from(first, 5))))
    async with listening(FaultyVenue(behaviours), certificate) as venue, reading(BINANCE, venue.url, tmp_path, authority=certificate.authority) as feed:
        await until(lambda: venue.connections == 201 and feed.received and first + 4 in numbers_of(feed.received[-1:]), seconds=90)
        await feed.live.settle()
    assert feed.source.connections == 201
    assert len(feed.received) > 0.9 * (first + 4), "nearly all was received"
    assert set(numbers_in_log(tmp_path)) == numbers_of(feed.received)
    assert sum(dict(r.headers).get(MARKER) == b"reconnect" for r in records_in_log(tmp_path)) == feed.gaps > 150


async def test_a_certificate_of_somebody_else_is_refused(tmp_path: Path, certificate: Certificate) -> None:
    """Not one frame is read; the sentence says which setting would trust it."""
    other = make_certificate(tmp_path / "other")
    async with (
        listening(FaultyVenue([play(list(frames_from(1, 5)))]), certificate) as venue,
        reading(BINANCE, venue.url, tmp_path, authority=other.authority) as feed,
    ):
        await until(lambda: bool(feed.source.trouble))
        assert "not trusted" in feed.source.trouble
        assert "K2_FEED_CA_FILE" in feed.source.trouble
        assert (feed.received, feed.source.connections) == ([], 0)


async def test_an_expired_certificate_is_refused(tmp_path: Path, certificate: Certificate) -> None:
    """However well signed."""
    expired = expired_certificate(certificate, tmp_path / "expired")
    async with (
        listening(FaultyVenue([play(list(frames_from(1, 5)))]), expired) as venue,
        reading(BINANCE, venue.url, tmp_path, authority=certificate.authority) as feed,
    ):
        await until(lambda: bool(feed.source.trouble))
        assert "expired" in feed.source.trouble
        assert feed.received == []


def expired_certificate(by: Certificate, folder: Path) -> Certificate:
    """Signed by the same authority, for a time that is over."""
    folder.mkdir()
    key, request, signed = folder / "server.key", folder / "server.csr", folder / "server.pem"
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", request)
    database = folder / "index.txt"
    database.touch()
    (folder / "serial").write_text("01")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={database}\nserial={folder / 'serial'}\nnew_certs_dir={folder}\ndefault_md=sha256\n"
        "policy=any\ncopy_extensions=copy\nunique_subject=no\n[any]\ncommonName=supplied\n"
    )
    dates = ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
    authority_key = by.authority.with_name("ca.key")
    openssl("ca", "-batch", "-config", folder / "ca.cnf", "-cert", by.authority, "-keyfile", authority_key, *dates, "-in", request, "-out", signed)
    return Certificate(by.authority, signed, key)


def openssl(*arguments: object) -> None:
    subprocess.run([shutil.which("openssl") or "openssl", *map(str, arguments)], check=True, capture_output=True)


async def test_a_half_open_connection_is_found_and_left(tmp_path: Path) -> None:
    """It stands, and nobody answers a ping: the next connection goes on."""
    behaviours = [play(list(frames_from(1, 3)), then=half_open), play(list(frames_from(4, 3)))]
    async with listening(FaultyVenue(behaviours)) as venue, reading(BINANCE, venue.url, tmp_path, ping_seconds=0.2) as feed:
        await until(lambda: len(feed.received) == 6)
        await feed.live.settle()
    assert set(numbers_in_log(tmp_path)) == set(range(1, 7))


async def test_a_venue_that_stops_its_heartbeats_is_left(tmp_path: Path) -> None:
    """It answers pings, yet sends nothing: silence longer than its own heartbeat is a dead stream."""
    async with (
        listening(FaultyVenue([play([b'{"type":"heartbeat"}'], then=stay)])) as venue,
        reading(quick(COINBASE, quiet_seconds=0.2), venue.url, tmp_path, symbols=("BTC-USD",)) as feed,
    ):
        await until(lambda: venue.connections >= 3)
        assert "silent for 0.2 s" in feed.source.trouble or feed.source.connections >= 2


async def test_a_quiet_symbol_with_heartbeats_keeps_its_connection(tmp_path: Path) -> None:
    """Nobody trades at night: that is no reason to reconnect."""
    async with (
        listening(FaultyVenue([play([b'{"type":"heartbeat"}'] * 30, every_seconds=0.1)])) as venue,
        reading(quick(COINBASE, quiet_seconds=1.5), venue.url, tmp_path, symbols=("BTC-USD",), ping_seconds=20) as feed,
    ):
        await until(lambda: len(feed.received) == 30)
        assert venue.connections == 1


@pytest.mark.parametrize("garbage", [b"", b"not json", b"\xff\xfe", b'{"data":{"e":"trade"}}', b"[" * 10_000, b'{"data":{"e":"trade","p":NaN}}'])
async def test_garbage_between_trades_becomes_records_of_its_own_and_stops_nothing(tmp_path: Path, garbage: bytes) -> None:
    """The worker makes a dead letter of it, bytes and all; its neighbours are rows."""
    frames = [*frames_from(1, 3), garbage, *frames_from(4, 3)]

    async def send_all(venue: FaultyVenue, socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(frame) # binary, for not all of it is text
        await stay(venue, socket)

    async with listening(FaultyVenue([send_all])) as venue, reading(BINANCE, venue.url, tmp_path) as feed:
        await until(lambda: len(feed.received) == 7)
        await feed.live.settle()
    assert feed.live.counts.unreadable == 1
    assert set(numbers_in_log(tmp_path)) == set(range(1, 7))
    assert [r.value for r in records_in_log(tmp_path) if r.key == b"binance"] == [garbage]


async def test_a_large_frame_that_cannot_be_read_is_cut_to_what_a_topic_takes(tmp_path: Path) -> None:
    """Kafka would refuse it for ever, and nothing behind it would be written; its letter says how long it was."""
    frames = [*frames_from(1, 2), b"x" * 3_000_000, *frames_from(3, 2)]
    async with listening(FaultyVenue([play(frames)])) as venue, reading(BINANCE, venue.url, tmp_path) as feed:
        await until(lambda: len(feed.received) == 5)
        await feed.live.settle()
    (cut,) = [r for r in records_in_log(tmp_path) if r.key == b"binance"]
    assert (cut.value, cut.headers) == (b"x" * (512 << 10), (("k2-cut", b"3000000"),))
    assert set(numbers_in_log(tmp_path)) == {1, 2, 3, 4}


async def test_an_oversized_frame_ends_the_connection_and_not_the_feed(tmp_path: Path) -> None:
    """A frame beyond any that venues send is not taken into memory."""
    behaviours = [play([*frames_from(1, 2), b"x" * (5 << 20)]), play(list(frames_from(3, 2)))]
    async with listening(FaultyVenue(behaviours)) as venue, reading(BINANCE, venue.url, tmp_path) as feed:
        await until(lambda: len(feed.received) == 4)
        await feed.live.settle()
    assert set(numbers_in_log(tmp_path)) == {1, 2, 3, 4}


async def test_a_venue_that_says_wait_is_left_alone_for_so_long(tmp_path: Path) -> None:
    """429 with Retry-After, and 418 for who went on."""
    venue = FaultyVenue([play(list(frames_from(1, 2)))], refusals={0: (429, {"Retry-After": "1"}), 1: (418, {"Retry-After": "1"})})
    began = asyncio.get_running_loop().time()
    async with listening(venue), reading(BINANCE, venue.url, tmp_path) as feed:
        await until(lambda: bool(feed.source.trouble))
        assert "HTTP status 429" in feed.source.trouble
        await until(lambda: len(feed.received) == 2)
    assert asyncio.get_running_loop().time() - began >= 2.0
    assert venue.connections == 3


@pytest.mark.parametrize(
    ("exchange", "said", "words"),
    [
        (BINANCE, b'{"error":{"code":2,"msg":"Invalid request: unknown stream"},"id":1}', "unknown stream"),
        (KRAKEN, b'{"error":"Currency pair not supported XYZ/USD","method":"subscribe","success":false}', "Currency pair not supported XYZ/USD"),
        (COINBASE, b'{"type":"error","message":"Failed to subscribe","reason":"XYZ-USD is not a valid product"}', "XYZ-USD is not a valid product"),
    ],
)
async def test_a_refused_subscription_is_said_and_asked_again(tmp_path: Path, exchange: Venue, said: bytes, words: str) -> None:
    """In the venue's words."""
    async with listening(FaultyVenue([play([said])])) as venue, reading(exchange, venue.url, tmp_path) as feed:
        await until(lambda: words in feed.source.trouble)
        await until(lambda: venue.connections >= 3)


async def test_a_venue_whose_address_is_dead_is_read_at_the_next_one(tmp_path: Path) -> None:
    """At the start, and again when the connection is cut."""
    behaviours = [play(list(frames_from(1, 3)), then=drop), play(list(frames_from(4, 3)))]
    async with listening(FaultyVenue(behaviours)) as alive, reading(BINANCE, "ws://127.0.0.1:1", tmp_path, more_urls=(alive.url,)) as feed:
        await until(lambda: len(feed.received) == 6)
        await feed.live.settle()
    assert set(numbers_in_log(tmp_path)) == set(range(1, 7))


class WrongClock(SystemClock):
    """A machine's clock that is off, and may be set at any time."""

    off_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.off_us


@pytest.mark.parametrize("off_us", [-600_000_000, 600_000_000])
async def test_a_gap_gets_its_cause_whatever_the_clock_says(tmp_path: Path, off_us: int) -> None:
    """A reconnect is after the trades before it and before those after it, by the venue's time: only so does it explain what is missing."""
    clock = WrongClock()
    clock.off_us = off_us
    now_ms = SystemClock().now_us() // 1000
    old, new = (list(frames_from(first, 3, first_ms=now_ms)) for first in (1, 10))
    async with listening(FaultyVenue([play(old, then=drop), play(new)])) as venue, reading(BINANCE, venue.url, tmp_path, clock=clock) as feed:
        await until(lambda: len(feed.received) == 6)
        await feed.live.settle()
    markers = [int(dict(r.headers)[TIME_US]) for r in records_in_log(tmp_path) if r.headers]
    assert len(markers) == 2
    assert (now_ms + 3) * 1000 < markers[1] < (now_ms + 10) * 1000


async def test_a_clock_that_is_set_is_no_reason_to_reconnect(tmp_path: Path) -> None:
    """Silence and age are measured by a clock that nobody sets."""
    clock = WrongClock()
    venue = FaultyVenue([play([b'{"type":"heartbeat"}'] * 40, every_seconds=0.02)])
    async with listening(venue), reading(quick(COINBASE, quiet_seconds=5.0), venue.url, tmp_path, symbols=("BTC-USD",), clock=clock, ping_seconds=20) as feed:
        for off_us in (86_400_000_000, -86_400_000_000, 0):
            clock.off_us, seen = off_us, len(feed.received)
            await until(lambda seen=seen: len(feed.received) > seen + 5)  # type: ignore[misc] # lambda default
        assert venue.connections == 1


async def test_a_tenfold_burst_in_a_steady_stream_is_taken_whole(tmp_path: Path) -> None:
    """A quiet market, then ten times as many trades, then quiet again: each once, in order, on one connection."""
    steady, burst, rest = list(frames_from(1, 100)), list(frames_from(101, 2_000)), list(frames_from(2_101, 100))

    async def market(venue: FaultyVenue, socket: ServerConnection) -> None:
        for frames, every_seconds in ((steady, 0.005), (burst, 0.0005), (rest, 0.005)):
            for frame in frames:
                await socket.send(frame, text=True)
                await asyncio.sleep(every_seconds)
        await stay(venue, socket)

    async with listening(FaultyVenue([market])) as venue, reading(BINANCE, venue.url, tmp_path, memory_bytes=50_000, ping_seconds=20) as feed:
        await until(lambda: len(feed.received) == 2_200, seconds=90)
        await feed.live.settle()
        assert venue.connections == 1
    assert [*numbers_in_log(tmp_path).elements()] == list(range(1, 2_201))


async def test_a_connection_is_replaced_before_the_venue_cuts_it_and_none_is_missed(tmp_path: Path) -> None:
    """The second opens before the first closes; both play the same minutes, and dedup knows the repeats by their ids."""

    async def live(venue: FaultyVenue, socket: ServerConnection) -> None:
        """Everybody who is connected gets what is traded now."""
        loop = asyncio.get_running_loop()
        while True:
            now = int(loop.time() * 500)
            await socket.send(next(frames_from(now, 1)), text=True)
            await asyncio.sleep((now + 1) / 500 - loop.time())

    venue = quick(BINANCE, max_age_seconds=0.3)
    async with listening(FaultyVenue([live])) as faulty, reading(venue, faulty.url, tmp_path) as feed:
        await until(lambda: faulty.connections >= 5)
        taken = numbers_of(feed.received)
        await feed.live.settle()
    assert feed.gaps == 1, "only the first connection comes after nothing"
    assert set(numbers_in_log(tmp_path)) >= taken


async def test_a_connection_is_not_let_go_before_its_successor_delivers_trades(tmp_path: Path) -> None:
    """Kraken greets with its status and subscribes later: what is traded meanwhile comes on the older connection only."""
    traded = asyncio.Event()

    async def older(venue: FaultyVenue, socket: ServerConnection) -> None:
        await play(list(frames_from(1, 5)), then=_when(traded, list(frames_from(6, 400))))(venue, socket)

    async def newer(venue: FaultyVenue, socket: ServerConnection) -> None:
        await socket.send(b'{"channel":"status","type":"update"}', text=True)
        await asyncio.sleep(0.2)  # the greeting is read, the older one would be gone
        traded.set()
        await asyncio.sleep(0.2)  # not subscribed yet
        await play(list(frames_from(406, 5)))(venue, socket)

    venue = quick(BINANCE, max_age_seconds=0.5)
    async with listening(FaultyVenue([older, newer])) as faulty, reading(venue, faulty.url, tmp_path, overlap_seconds=5.0) as feed:
        await until(lambda: numbers_of(feed.received) == set(range(1, 411)))
        await feed.live.settle()
    assert feed.gaps == 1, "only the first connection comes after nothing"
    assert set(numbers_in_log(tmp_path)) == set(range(1, 411))


def _when(event: asyncio.Event, frames: list[bytes]) -> Behaviour:
    async def behave(venue: FaultyVenue, socket: ServerConnection) -> None:
        await event.wait()
        await play(frames)(venue, socket)

    return behave


async def test_a_connection_that_was_replaced_is_closed_in_the_end(tmp_path: Path) -> None:
    """Else a feed would hold one more every day."""
    here: set[object] = set()

    async def present(venue: FaultyVenue, socket: ServerConnection) -> None:
        here.add(socket)
        await play(list(frames_from(len(here), 1)))(venue, socket)
        here.discard(socket)

    venue = quick(BINANCE, max_age_seconds=1.0)
    async with listening(FaultyVenue([present])) as faulty, reading(venue, faulty.url, tmp_path, overlap_seconds=0.05):
        await until(lambda: faulty.connections >= 3)
        await until(lambda: len(here) == 1)


async def test_a_flood_does_not_keep_a_feed_from_settling(tmp_path: Path) -> None:
    """What was taken before is durable, though the spool is never empty."""

    async def flood(venue: FaultyVenue, socket: ServerConnection) -> None:
        for number in range(1, 1_000_000):
            await socket.send(next(frames_from(number, 1)), text=True)

    async with listening(FaultyVenue([flood])) as venue, reading(BINANCE, venue.url, tmp_path, ping_seconds=20) as feed:
        await until(lambda: len(feed.received) > 1_000)
        taken = len(feed.received)
        async with asyncio.timeout(60):
            await feed.live.settle()
        assert len(feed.received) > taken, "the flood went on"
    assert set(numbers_in_log(tmp_path)) >= set(range(1, taken))


async def test_a_burst_is_taken_whole(tmp_path: Path) -> None:
    """6,000 trades at once: the socket waits for the log, not the trades."""
    frames = list(frames_from(1, 6_000))
    async with (
        listening(FaultyVenue([play(frames)])) as venue,
        reading(BINANCE, venue.url, tmp_path, memory_bytes=100_000, disk_bytes=1_000_000, ping_seconds=20) as feed,
    ):
        await until(lambda: len(feed.received) == 6_000, seconds=90)
        await feed.live.settle()
    assert set(numbers_in_log(tmp_path)) == set(range(1, 6_001))


class AbsentLog:
    """A log that takes nothing until it is mended."""

    def __init__(self, log: EmbeddedSink) -> None:
        self._log, self.is_mended = log, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        if not self.is_mended:
            raise TransportError("the log does not answer")
        return await self._log.send(topic, partition, records)


async def test_while_the_log_is_away_trades_go_to_memory_then_disk_then_stay_in_the_socket(tmp_path: Path) -> None:
    """Bounded, in this order, and it says which; when the log comes back all of them are in it, in order."""
    sink = AbsentLog(EmbeddedSink(tmp_path / "log"))
    frames = list(frames_from(1, 6_000))
    async with (
        listening(FaultyVenue([play(frames)])) as venue,
        reading(BINANCE, venue.url, tmp_path, sink=sink, memory_bytes=100_000, disk_bytes=200_000, ping_seconds=20) as feed,  # type: ignore[arg-type] # a sink by __getattr__
    ):
        await until(lambda: feed.spool.where == "nowhere")
        stands = len(feed.received)
        await asyncio.sleep(0.3)
        assert len(feed.received) == stands < 6_000
        assert 250_000 < len(feed.spool) < 450_000
        sink.is_mended = True
        await until(lambda: len(feed.received) == 6_000, seconds=90)
        await feed.live.settle()
    numbers = [*numbers_in_log(tmp_path).elements()]
    assert numbers == list(range(1, 6_001)), "each once, in order"


async def test_what_the_log_did_not_take_is_published_by_the_next_feed(tmp_path: Path) -> None:
    """The feed stops while the log is away: the disk keeps it, markers too, and the next one begins with it."""
    sink = AbsentLog(EmbeddedSink(tmp_path / "log"))
    async with (
        listening(FaultyVenue([play(list(frames_from(1, 3_000)))])) as venue,
        reading(BINANCE, venue.url, tmp_path, sink=sink, memory_bytes=100_000) as feed,  # type: ignore[arg-type] # as above
    ):
        await until(lambda: len(feed.received) == 3_000)
        await until(lambda: len(feed.spool) > 700_000)
    async with listening(FaultyVenue([play(list(frames_from(3_001, 10)))])) as venue, reading(BINANCE, venue.url, tmp_path) as feed:
        await until(lambda: len(feed.received) == 10)
        await feed.live.settle()
    assert set(numbers_in_log(tmp_path)) == set(range(1, 3_011))
    assert sum(numbers_in_log(tmp_path).values()) == 3_010, "none of them twice"


async def test_a_disk_that_is_full_ends_the_feed_with_a_sentence(tmp_path: Path) -> None:
    """It names the file; what is in it stays."""
    (tmp_path / "full").symlink_to("/dev/full")
    spool = Spool(tmp_path / "full", memory_bytes=0, disk_bytes=1 << 20)
    with closing(spool), pytest.raises(FeedError, match="cannot be written"):
        await spool.put([Outgoing(b"k", b"v", 1)])


def seen(monkeypatch: pytest.MonkeyPatch, sink: object) -> list[LiveFeed]:
    """Feeds that `live_feed.feed` makes from now on, their log is `sink`."""
    made: list[LiveFeed] = []

    class Seen(LiveFeed):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            made.append(self)

    monkeypatch.setattr(live_feed, "LiveFeed", Seen)
    monkeypatch.setattr(live_feed, "open_sink", lambda settings: sink)
    return made


async def test_a_feed_that_is_stopped_while_nothing_has_room_keeps_all_that_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait to be encoded and a frame that cannot be read wait on disk for the next feed, whatever the bounds; so does the reconnect's marker."""
    home = tmp_path / "home"
    made = seen(monkeypatch, AbsentLog(EmbeddedSink(home / "log")))
    frames = [*frames_from(1, 300), b'{"data":{"e":"trade"}}']
    async with listening(FaultyVenue([play(frames)])) as venue:
        settings = Settings(home=home, binance_urls=venue.url, feed_memory_bytes=1, feed_disk_bytes=1)
        feeding = asyncio.create_task(live_feed.feed(settings, BINANCE, ["BTCUSDT"], quotes=False))
        await until(lambda: bool(made) and made[0].counts.trades == 300 and made[0].counts.unreadable == 1)
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding
    with closing(Spool(home / "feed" / "market.crypto.trades.binance.spool", memory_bytes=1, disk_bytes=1)) as spool:
        kept = await spool.peek(1_000)
    assert Counter(record.key for record in kept if record.value is not None) == {b"BTCUSDT": 300, b"binance": 1}
    assert [record.key for record in kept if record.headers] == [b"BTCUSDT"]


async def test_a_disk_that_is_full_ends_a_whole_feed_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a group of groups of errors, which the command line would print as a traceback."""
    home = tmp_path / "home"
    (home / "feed").mkdir(parents=True)
    (home / "feed" / "market.crypto.trades.binance.spool").symlink_to("/dev/full")
    seen(monkeypatch, AbsentLog(EmbeddedSink(home / "log")))
    async with listening(FaultyVenue([play(list(frames_from(1, 300)))])) as venue, asyncio.timeout(60):
        settings = Settings(home=home, binance_urls=venue.url, feed_memory_bytes=1, feed_disk_bytes=1 << 20)
        with pytest.raises(FeedError, match="cannot be written"):
            await live_feed.feed(settings, BINANCE, ["BTCUSDT"], quotes=False)


async def test_repeated_last_matches_are_known_by_their_ids(tmp_path: Path) -> None:
    """Coinbase repeats an older trade on every subscription: the same id, so dedup drops it."""
    frames = shipped("frames/coinbase_exchange_2021-04-17.jsonl.gz").splitlines()
    async with (
        listening(FaultyVenue([play(frames, then=drop), play(frames)])) as venue,
        reading(quick(COINBASE, quiet_seconds=None), venue.url, tmp_path, symbols=("SKL-USD",)) as feed,
    ):
        await until(lambda: len(feed.received) == 2 * len(frames))
        await feed.live.settle()
    decoder = Decoder("trade_v2", OneSchema())
    ids = Counter(i for batch in batches(tmp_path) for i in zip(*(decoder.decode(batch).rows[c].to_pylist() for c in ("symbol", "trade_id")), strict=True))
    distinct = {(t["symbol"], t["trade_id"]) for f in frames for t in coinbase.read(f, new_id=str, now_us=0).trades}
    assert set(ids) == distinct
    assert sum(ids.values()) == 2 * 107


async def test_the_command_publishes_until_it_is_told_to_stop(tmp_path: Path, certificate: Certificate) -> None:
    """`k2 feed binance` as a process of its own: topic and contract are made, the trades are in the log when it ends."""
    settings = {"K2_HOME": str(tmp_path / "home"), "K2_FEED_CA_FILE": str(certificate.authority), "K2_PARTITIONS": "2"}
    async with listening(FaultyVenue([play(list(frames_from(1, 500)))]), certificate) as venue:
        environment = {**os.environ, **settings, "K2_BINANCE_URLS": venue.url}
        command = [sys.executable, "-m", "k2stream.cli", "feed", "binance", "--symbols", "BTCUSDT"]
        feed = await asyncio.create_subprocess_exec(*command, env=environment)
        log = EmbeddedLog(tmp_path / "home" / "log")
        try:
            topic = "market.crypto.trades.binance"
            await until(lambda: sum(log.bounds(TopicPartition(topic, p))[1] for p in range(2)) == 501 if topic in log.topics() else False, seconds=90)
        finally:
            log.close()
            feed.terminate()
        assert await feed.wait() == 0


async def test_an_unchecked_certificate_is_warned_of_at_every_start(tmp_path: Path, certificate: Certificate) -> None:
    """Only the setting's own name turns the check off."""
    settings = {"K2_HOME": str(tmp_path / "home"), "K2_BINANCE_SSL_VERIFY": "false"}
    async with listening(FaultyVenue([play(list(frames_from(1, 5)))]), certificate) as venue:
        environment = {**os.environ, **settings, "K2_BINANCE_URLS": venue.url}
        command = [sys.executable, "-m", "k2stream.cli", "feed", "binance", "--symbols", "BTCUSDT"]
        feed = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        await until(lambda: venue.connections == 1, seconds=90)
        await asyncio.sleep(0.2)
        feed.terminate()
        said = (await feed.communicate())[0].decode()
    assert "K2_BINANCE_SSL_VERIFY=false" in said
    assert "feed.connected" in said
