"""A venue on loopback, over TLS, that plays frames and misbehaves as told; and a feed that reads it into an embedded log."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from k2stream.clock import Clock, SystemClock
from k2stream.dev.certificate import Certificate
from k2stream.feed.connection import tls_context
from k2stream.feed.live import Lane, LiveFeed
from k2stream.feed.recording import MessageIds
from k2stream.feed.source import Source, Wanted
from k2stream.feed.spool import Spool
from k2stream.feed.venue import Venue
from k2stream.symbols import Pair
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import LogSink

TOPIC = "market.crypto.trades.test"
SCHEMA_ID = 7

Behaviour = Callable[["FaultyVenue", ServerConnection], Awaitable[None]]
"""What the venue does on one connection."""


@dataclass(slots=True)
class FaultyVenue:
    """Behaves on its nth connection as the nth behaviour says, and as the last one from then on."""

    behaviours: Sequence[Behaviour]
    refusals: Mapping[int, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Connection -> HTTP status and headers that it answers with instead."""
    url: str = ""
    connections: int = 0
    """Asked for so far."""
    paths: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the test leaves."""

    async def handle(self, socket: ServerConnection) -> None:
        behaviour = self.behaviours[min(self.connections - 1, len(self.behaviours) - 1)]
        with suppress(ConnectionClosed):
            await behaviour(self, socket)

    async def refuse(self, socket: ServerConnection, request: Request) -> Response | None:
        number = self.connections
        self.connections += 1
        self.paths.append(request.path)
        if number not in self.refusals:
            return None
        status, headers = self.refusals[number]
        return Response(status, HTTPStatus(status).phrase, Headers({**headers, "Content-Length": "0"}))


@asynccontextmanager
async def listening(venue: FaultyVenue, certificate: Certificate | None = None) -> AsyncIterator[FaultyVenue]:
    """The venue on a free port; `wss` with a certificate, `ws` without."""
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.certificate, certificate.key)
    async with serve(venue.handle, "127.0.0.1", 0, ssl=tls, process_request=venue.refuse, ping_interval=None, close_timeout=0.2) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        venue.url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}"
        yield venue
        venue.over.set()


def play(frames: Sequence[bytes], *, then: Behaviour | None = None, every_seconds: float = 0.0) -> Behaviour:
    """Send frames, then do something else; without anything, stay."""

    async def behave(venue: FaultyVenue, socket: ServerConnection) -> None:
        for frame in frames:
            await socket.send(frame, text=True)
            if every_seconds:
                await asyncio.sleep(every_seconds)
        await (then or stay)(venue, socket)

    return behave


async def stay(venue: FaultyVenue, socket: ServerConnection) -> None:
    """Say nothing more; pings are answered."""
    await socket.wait_closed()


async def close(venue: FaultyVenue, socket: ServerConnection) -> None:
    """End the connection in order."""
    await socket.close(1001, "the venue is going down")


async def drop(venue: FaultyVenue, socket: ServerConnection) -> None:
    """Cut the connection."""
    await asyncio.sleep(0.005)  # what was sent leaves first
    socket.transport.abort()


async def half_open(venue: FaultyVenue, socket: ServerConnection) -> None:
    """The connection stands, and nobody is there: not even a ping is answered."""
    socket.transport.pause_reading()
    await venue.over.wait()


@dataclass(slots=True)
class Reading:
    """A feed at work, and what it received."""

    source: Source
    live: LiveFeed
    spool: Spool
    sink: LogSink
    received: list[bytes] = field(default_factory=list)
    gaps: int = 0

    async def take(self, frame: bytes, now_us: int) -> None:
        self.received.append(frame)
        await self.live.take(frame, now_us)

    async def mark_gap(self) -> None:
        self.gaps += 1
        await self.live.mark_gap()


@asynccontextmanager
async def reading(
    venue: Venue,
    url: str,
    folder: Path,
    *,
    sink: LogSink | None = None,
    authority: Path | None = None,
    symbols: Sequence[str] = ("BTCUSDT",),
    memory_bytes: int = 1 << 20,
    disk_bytes: int = 1 << 24,
    topic: str = TOPIC,
    schema_id: int = SCHEMA_ID,
    clock: Clock | None = None,
    more_urls: Sequence[str] = (),
    pairs: Mapping[str, Pair] | None = None,
    **wanted: Any,
) -> AsyncIterator[Reading]:
    """A feed of `venue` at `url`, then at `more_urls`, into an embedded log under `folder`, or into `sink`; `wanted` are further fields of Wanted."""
    clock, own = clock or SystemClock(), sink or EmbeddedSink(folder / "log")
    await own.create_topic(topic, 2, {})
    spool = Spool(folder / "feed.spool", memory_bytes=memory_bytes, disk_bytes=disk_bytes)
    live = LiveFeed(venue, symbols, {"trades": Lane(topic, "trade_v2", schema_id, spool)}, ids=MessageIds(uuid4()), clock=clock, pairs=pairs)
    tls = tls_context(ca_file=str(authority), verify=True) if authority else None
    choice = {"ping_seconds": 0.5, "first_pause_seconds": 0.005, "longest_pause_seconds": 0.05, **wanted}
    found = Reading(Source(Wanted(venue, symbols, False, (url, *more_urls), tls, **choice), clock, live.take, live.mark_gap, Random(1)), live, spool, own)
    found.source.on_frame, found.source.on_gap = found.take, found.mark_gap
    tasks = [asyncio.create_task(found.source.run()), asyncio.create_task(live.run(own))]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        spool.close()
        await own.close()


def quick(venue: Venue, **changes: Any) -> Venue:
    """The venue with other patience."""
    return replace(venue, **changes)


async def until(condition: Callable[[], bool], *, seconds: float = 60.0, what: str = "") -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 # conditions of all kinds
            await asyncio.sleep(0.005)


def frames_from(first: int, count: int, *, first_ms: int = 1_610_064_000_000) -> Iterator[bytes]:
    """Binance trades of contiguous ids, a millisecond apart; number 0 would be at `first_ms`."""
    for number in range(first, first + count):
        yield (
            b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1610064000278,"s":"BTCUSDT","t":%d,"p":"39432.48000000",'
            b'"q":"0.00026300","T":%d,"m":true,"M":true}}' % (number, first_ms + number)
        )
