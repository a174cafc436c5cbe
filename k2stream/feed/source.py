"""A venue's frames, for good: connections are made again, elsewhere, later, and replaced before the venue cuts them."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import structlog

from k2stream.clock import Clock
from k2stream.errors import FeedLost
from k2stream.feed.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff
from k2stream.feed.connection import PING_SECONDS, connected, receive
from k2stream.feed.venue import Venue

log = structlog.get_logger(__name__)

STEADY_SECONDS = 30.0
"""A connection that delivered for so long was a good one: when it ends, the next is tried at once."""
OVERLAP_SECONDS = 10.0
"""So long the older of two connections goes on: a subscription takes effect after the first frame, and what the older one got lies in its queue."""
CLOSE_SECONDS = 3.0
"""A connection's own farewell takes one at most."""

OnFrame = Callable[[bytes, int], Awaitable[None]]
"""Takes a frame and the time it was read, microseconds since the epoch. While it waits the socket is not read; FeedLost ends the connection."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read, and how."""

    venue: Venue
    symbols: Sequence[str]
    quotes: bool
    urls: Sequence[str]
    tls: ssl.SSLContext | None
    ping_seconds: float = PING_SECONDS
    first_pause_seconds: float = FIRST_SECONDS
    longest_pause_seconds: float = LONGEST_SECONDS
    overlap_seconds: float = OVERLAP_SECONDS


@dataclass(slots=True)
class Reading:
    """A connection that is read, from its first attempt on."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it delivers."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it waits for a frame: none lies in its queue."""


@dataclass(slots=True)
class Source:
    """Reads one venue until it is cancelled; never gives up.

    While a connection is replaced both deliver for `overlap_seconds`: frames come twice then, which dedup sees, and none is missed. After a time
    without any connection `on_gap` is called before the first frame of the next one.
    """

    wanted: Wanted
    clock: Clock
    on_frame: OnFrame
    on_gap: Callable[[], Awaitable[None]]
    random: Random = field(default_factory=Random)
    connections: int = 0
    """Made so far."""
    trouble: str = ""
    """Why nothing is read at present; empty while something is."""
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)
    """Connections that have a successor and go on for a moment."""

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(self.wanted.urls, self.random, self.wanted.first_pause_seconds, self.wanted.longest_pause_seconds)
        reading: tuple[asyncio.Task[None], Reading] | None = None
        try:
            while True:
                reading = await self._replaced(reading, backoff)
                await self._outlived(reading[0], backoff)
        finally:
            await _cancelled({*self._leaving, *(reading or ())[:1]})

    async def _replaced(self, older: tuple[asyncio.Task[None], Reading] | None, backoff: Backoff) -> tuple[asyncio.Task[None], Reading]:
        """A connection that delivers; `older` goes on until then, and a little longer."""
        while True:
            reading = Reading()
            newer = asyncio.create_task(self._read(backoff.url, reading, older[0] if older else None))
            newer.add_done_callback(_heard)
            waiting = asyncio.create_task(reading.begun.wait())
            try:
                await asyncio.wait({newer, waiting}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                await _cancelled({newer})
                raise
            finally:
                waiting.cancel()
            if reading.begun.is_set():
                self.trouble = ""
                if older is not None:
                    self._let_go(*older)
                return newer, reading
            await self._failed(newer, backoff)

    def _let_go(self, older: asyncio.Task[None], reading: Reading) -> None:
        for task in (older, asyncio.create_task(self._ended(older, reading))):
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _ended(self, older: asyncio.Task[None], reading: Reading) -> None:
        await asyncio.sleep(self.wanted.overlap_seconds)
        while not (reading.idle.is_set() or older.done()):  # what it has read was asked for before the newer one was
            await asyncio.wait({older, waiting := asyncio.create_task(reading.idle.wait())}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        older.cancel()

    async def _outlived(self, reading: asyncio.Task[None], backoff: Backoff) -> None:
        """Returns when it is time for another connection: this one ended, or is old."""
        began_us = self.clock.now_us()
        done, _ = await asyncio.wait({reading}, timeout=self.wanted.venue.max_age_seconds)
        if not done or self.clock.now_us() - began_us > STEADY_SECONDS * 1e6:
            backoff.succeeded()
        if done:
            await self._failed(reading, backoff)

    async def _failed(self, ended: asyncio.Task[None], backoff: Backoff) -> None:
        """Say why and wait; raises what is no FeedLost, for then it is not the venue."""
        exc = ended.exception()
        if not isinstance(exc, FeedLost):
            raise exc or AssertionError("a connection was read to an end that it does not have")
        self.trouble = str(exc)
        delay_seconds = backoff.failed(exc.retry_after_seconds)
        log.warning("feed.lost", venue=self.wanted.venue.name, cause=str(exc), failures=backoff.failures, again_in_seconds=round(delay_seconds, 1))
        await asyncio.sleep(delay_seconds)

    async def _read(self, url: str, reading: Reading, older: asyncio.Task[None] | None) -> None:
        """One connection's frames, until it is lost."""
        wanted, loop = self.wanted, asyncio.get_running_loop()
        quiet_seconds = wanted.venue.quiet_seconds
        subscription = wanted.venue.subscribe(wanted.symbols, wanted.quotes)
        async with connected(url, subscription, tls=wanted.tls, ping_seconds=wanted.ping_seconds) as socket:
            self.connections += 1
            log.info("feed.connected", venue=wanted.venue.name, url=url, symbols=len(wanted.symbols))
            try:
                async with asyncio.timeout(quiet_seconds) as timer:
                    while True:
                        reading.idle.set()
                        frame = await receive(socket, url)
                        reading.idle.clear()
                        timer.reschedule(None)  # our own waiting is not the venue's silence
                        if not reading.begun.is_set() and (older is None or older.done()):
                            await self.on_gap()
                        reading.begun.set()
                        await self.on_frame(frame, self.clock.now_us())
                        timer.reschedule(None if quiet_seconds is None else loop.time() + quiet_seconds)
            except TimeoutError as exc:
                raise FeedLost(f"{url}: silent for {quiet_seconds:g} s, though it sends heartbeats.") from exc


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    """Returns when none of them hands a frame on any more."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)


def _heard(task: asyncio.Task[None]) -> None:
    """What ends a connection that has a successor already is of no interest."""
    if not task.cancelled():
        task.exception()
