"""A live feed from settings: topics made, contracts registered, a venue read until the process is told to stop."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, replace
from uuid import uuid4

import structlog

from k2stream.clock import SystemClock
from k2stream.decode.registry import open_registry
from k2stream.errors import K2Error
from k2stream.feed.connection import tls_context
from k2stream.feed.live import Lane, LiveFeed
from k2stream.feed.recording import MessageIds
from k2stream.feed.source import Source, Wanted
from k2stream.feed.spool import Spool
from k2stream.feed.venue import Venue
from k2stream.playback import prepare_topic
from k2stream.settings import Settings
from k2stream.symbols import listings_or_none, pairs_of
from k2stream.topics import KINDS, TopicName
from k2stream.topics.name import FEED_MARK
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink

log = structlog.get_logger(__name__)

SAY_SECONDS = 10.0
AGAIN_SECONDS = 5.0


def run(settings: Settings, venue: Venue, symbols: Sequence[str], *, quotes: bool) -> None:
    """Read `venue` until SIGTERM or SIGINT; what the log has not taken by then waits on disk for the next start. Raises K2Error."""
    asyncio.run(_until_signalled(settings, venue, symbols, quotes=quotes))


async def _until_signalled(settings: Settings, venue: Venue, symbols: Sequence[str], *, quotes: bool) -> None:
    feeding = asyncio.create_task(feed(settings, venue, symbols, quotes=quotes))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, feeding.cancel)
    try:
        await feeding
    except asyncio.CancelledError:
        log.info("feed.stopped", venue=venue.name)


async def feed(settings: Settings, venue: Venue, symbols: Sequence[str], *, quotes: bool) -> None:
    """Read `venue` into the log until cancelled."""
    tls = trusted(settings, venue)  # before anything is made: a wrong file of certificates is said at once
    pairs = pairs_of(listings_or_none(settings), venue.name)
    sink, clock = open_sink(settings), SystemClock()
    try:
        async with _lanes(settings, venue, sink, quotes=quotes) as lanes:
            live = LiveFeed(venue, symbols, lanes, ids=MessageIds(uuid4()), clock=clock, name=settings.feed_name, pairs=pairs)
            source = Source(Wanted(venue, symbols, quotes, urls_of(settings, venue), tls), clock, live.take, live.mark_gap)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(live.run(sink))
                    tasks.create_task(source.run())
                    tasks.create_task(_say(venue, live, source, lanes))
            except ExceptionGroup as group:
                raise _first(group) from group
            finally:
                live.leave()
    finally:
        await sink.close()


def _first(exc: Exception) -> Exception:
    while isinstance(exc, ExceptionGroup):  # a group of a group: the feed's own tasks are one of the tasks
        exc = exc.exceptions[0]
    return exc


def urls_of(settings: Settings, venue: Venue) -> tuple[str, ...]:
    """Where the venue is asked, in turn."""
    given = getattr(settings, f"{venue.name}_urls")
    return tuple(u.strip() for u in given.split(",") if u.strip()) or venue.urls


def trusted(settings: Settings, venue: Venue) -> ssl.SSLContext:
    """What the venue's connections trust; an unchecked certificate is warned of at every start."""
    verify: bool = getattr(settings, f"{venue.name}_ssl_verify")
    if not verify:
        log.warning("feed.unverified", venue=venue.name, setting=f"K2_{venue.name.upper()}_SSL_VERIFY=false", risk="anybody on the way can play the venue")
    return tls_context(ca_file=settings.feed_ca_file, verify=verify)


@asynccontextmanager
async def _lanes(settings: Settings, venue: Venue, sink: LogSink, *, quotes: bool) -> AsyncIterator[dict[str, Lane]]:
    """Topics, contracts and spools of what is read; a log or a registry that is not there is waited for."""
    lanes: dict[str, Lane] = {}
    with ExitStack() as spools:
        for data_type in ("trades", "quotes") if quotes else ("trades",):
            usual = TopicName(venue.asset_class, data_type, venue.name)
            topic = replace(usual, exchange=f"{venue.name}{FEED_MARK}{settings.feed_name}") if settings.feed_own_topic else usual
            path = settings.home_path("feed", f"{usual}{FEED_MARK}{settings.feed_name}.spool" if settings.feed_name else f"{usual}.spool")
            spool = Spool(path, memory_bytes=settings.feed_memory_bytes, disk_bytes=settings.feed_disk_bytes)
            spools.callback(spool.close)
            lanes[data_type] = Lane(str(topic), KINDS[data_type].schema, await _prepared(settings, sink, str(topic)), spool)
        yield lanes


async def _prepared(settings: Settings, sink: LogSink, topic: str) -> int:
    """Schema id of a topic that exists, however long that takes."""
    while True:
        try:
            return await prepare_topic(settings, sink, open_registry(settings), topic)
        except K2Error as exc:
            if not exc.is_retriable:
                raise
            log.warning("feed.waits", topic=topic, cause=str(exc), again_in_seconds=AGAIN_SECONDS)
        await asyncio.sleep(AGAIN_SECONDS)


async def _say(venue: Venue, live: LiveFeed, source: Source, lanes: dict[str, Lane]) -> None:
    """Every few seconds one line of what was done."""
    while True:
        await asyncio.sleep(SAY_SECONDS)
        waiting = {data_type: {"bytes": len(lane.spool), "next_to": lane.spool.where} for data_type, lane in lanes.items()}
        log.info("feed.counts", venue=venue.name, connections=source.connections, trouble=source.trouble, waiting=waiting, **asdict(live.counts))
