"""Missing trades asked back from the venue: open gaps and the table's rows say which, the REST endpoint gives them, the topic takes them.

They are ordinary records with the ids that the live feed would have given them: what comes twice is dropped by dedup, and a gap turns
filled as for any late row. What was done is noted under K2_HOME, so that an interrupted run goes on where it was.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from uuid import uuid4

import structlog

from k2stream.clock import Clock, SystemClock
from k2stream.decode.registry import open_registry
from k2stream.errors import FeedError, K2Error
from k2stream.feed.backfill_notes import BackfillNotes
from k2stream.feed.live import records_of
from k2stream.feed.publisher import Publisher, publishing
from k2stream.feed.recording import MessageIds
from k2stream.feed.rest import binance, coinbase, kraken
from k2stream.feed.rest.client import RestClient, pages, rest_client
from k2stream.feed.rest.endpoint import PAGE_TRADES, Endpoint, Page, Wanted
from k2stream.feed.venue import VENUES
from k2stream.lake.reader import TableReader
from k2stream.live_feed import trusted
from k2stream.number_spans import Span, count, merged, near, of_numbers, within, without
from k2stream.playback import prepare_topic
from k2stream.query.engine import Engine
from k2stream.query.open_gaps import OpenGap, missing_numbers, open_gaps
from k2stream.rows import BACKFILL, FEED_KEY
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.topics import KINDS, TopicName
from k2stream.transport.open import open_sink

log = structlog.get_logger(__name__)

CAUSES = ("feed_reconnect", "upstream")
"""Causes of gaps that a venue can fill; it knows nothing of what was spoiled or lost behind the feed."""

SAID_SPANS = 5
KEYLESS = "K2_BINANCE_API_KEY is not set: only the newest 1,000 trades of a symbol can be had; older ones need a key"

FEED = (FEED_KEY, BACKFILL)
"""Entry of vendor_data in every row that comes this way."""


@dataclass(frozen=True, slots=True)
class Work:
    """One gap and the numbers of it that are asked for."""

    gap: OpenGap
    spans: tuple[Span, ...]

    @property
    def missing(self) -> int:
        """How many they are."""
        return count(self.spans)


@dataclass(slots=True)
class Filled:
    """What became of one gap."""

    gap: OpenGap
    published: list[Span] = field(default_factory=list)
    absent: list[Span] = field(default_factory=list)
    """The venue names the trades around them, and not these."""
    unanswered: list[Span] = field(default_factory=list)
    """The venue said nothing of them, this time."""
    trouble: str = ""

    def line(self) -> str:
        """For people."""
        parts = [f"{count(self.published):,} published"]
        if self.absent:
            parts.append(f"{count(self.absent):,} that the venue does not have ({_words(self.absent)})")
        if self.unanswered:
            parts.append(f"{count(self.unanswered):,} of which it says nothing ({_words(self.unanswered)})")
        return f"{self.gap.symbol} {self.gap.first}-{self.gap.last}: {', '.join(parts)}{'; ' + self.trouble if self.trouble else ''}"


def endpoint_of(settings: Settings, venue: str) -> tuple[Endpoint, str, str]:
    """A venue's endpoint, its address and the key for it."""
    key = settings.binance_api_key.get_secret_value() if venue == "binance" else ""
    endpoints = {"binance": binance.KEYED if key else binance.KEYLESS, "coinbase": coinbase.ENDPOINT, "kraken": kraken.ENDPOINT}
    return endpoints[venue], getattr(settings, f"{venue}_rest_url") or endpoints[venue].url, key


def notes_of(settings: Settings, venue: str) -> BackfillNotes:
    """What earlier runs noted of a venue."""
    return BackfillNotes.read(settings.home_path("feed", f"backfill-{venue}.json"))


def work_to_do(settings: Settings, venue: str, notes: BackfillNotes, *, symbols: Collection[str] = (), causes: Collection[str] = CAUSES) -> list[Work]:
    """Open gaps of these causes, with what no row, no earlier run and no answer of the venue accounts for.

    Raises LakeError or QueryError if the tables cannot be read.
    """
    with Engine.of(settings) as engine:
        # Gaps first: rows that close them meanwhile are then seen, and a gap that opens meanwhile is the next round's.
        gaps = open_gaps(engine, _files(settings, "gaps"), exchange=venue.upper(), data_type="trades")
        files = _files(settings, "trades")
        found = [g for g in gaps if g.cause in causes and (not symbols or g.symbol in symbols)]
        work = [Work(g, tuple(without(missing_numbers(engine, files, g), notes.accounted(g.symbol)))) for g in found]
    return [w for w in work if w.spans]


def _files(settings: Settings, table: str) -> list[TableFile]:
    with closing(TableReader.open_reader(settings, table)) as reader:
        snapshot = reader.load().current_snapshot()
        return [] if snapshot is None else reader.files(snapshot.snapshot_id)


async def rounds(
    settings: Settings,
    venue: str,
    notes: BackfillNotes,
    *,
    symbols: Collection[str],
    causes: Collection[str],
    told: Callable[[str], None],
    every_seconds: float = 0.0,
    is_dry: bool = False,
) -> bool:
    """Look for work and do it, once or every so many seconds; True if the last round left nothing that the venue may have.

    Raises K2Error; while it goes round, what may pass is logged and the next round tries again.
    """
    while True:
        try:
            is_done = await _round(settings, venue, notes, symbols=symbols, causes=causes, told=told, is_dry=is_dry)
        except K2Error as exc:
            if not (every_seconds and exc.is_retriable):
                raise
            is_done = False
            log.warning("backfill.waits", venue=venue, cause=str(exc), again_in_seconds=every_seconds)
        if not every_seconds:
            return is_done
        await asyncio.sleep(every_seconds)


async def _round(
    settings: Settings, venue: str, notes: BackfillNotes, *, symbols: Collection[str], causes: Collection[str], told: Callable[[str], None], is_dry: bool
) -> bool:
    work = await asyncio.to_thread(work_to_do, settings, venue, notes, symbols=symbols, causes=causes)
    missing = sum(each.missing for each in work)
    told(f"{venue}: {missing:,} trades are missing in {len(work):,} open gaps" if work else f"{venue}: nothing is missing that was not asked for")
    if is_dry:
        for each in work:
            told(f"{each.gap.symbol} {each.gap.first}-{each.gap.last}, {each.gap.cause}: {each.missing:,} missing ({_words(each.spans)})")
        return not work
    if endpoint_of(settings, venue)[0] is binance.KEYLESS and work:
        told(KEYLESS)
    filled = await backfill(settings, venue, work, notes, told=lambda each: told(each.line()))
    return not any(each.unanswered for each in filled)


async def backfill(settings: Settings, venue: str, work: Collection[Work], notes: BackfillNotes, *, told: Callable[[Filled], None]) -> list[Filled]:
    """Ask the venue for all of `work` and publish what it gives; raises K2Error for what is not about one gap alone."""
    done: list[Filled] = []
    if work:
        async with _desk(settings, venue, notes) as desk:
            for each in work:
                done.append(await desk.fill(each))
                told(done[-1])
    return done


@asynccontextmanager
async def _desk(settings: Settings, venue: str, notes: BackfillNotes) -> AsyncIterator["_Desk"]:
    endpoint, url, key = endpoint_of(settings, venue)
    clock, sink = SystemClock(), open_sink(settings)
    topic = TopicName(VENUES[venue].asset_class, "trades", venue)
    schema = KINDS["trades"].schema
    try:
        schema_id = await prepare_topic(settings, sink, open_registry(settings), str(topic))
        async with (
            rest_client(endpoint, url, tls=trusted(settings, VENUES[venue]), key=key, clock=clock) as client,
            publishing(sink, str(topic), schema=schema, schema_id=schema_id, clock=clock) as publisher,
        ):
            yield _Desk(client, publisher, schema, schema_id, notes, MessageIds(uuid4()), clock)
    finally:
        await sink.close()


@dataclass(slots=True)
class _Desk:
    """Where answers become records."""

    client: RestClient
    publisher: Publisher
    schema: str
    schema_id: int
    notes: BackfillNotes
    ids: MessageIds
    clock: Clock

    async def fill(self, work: Work) -> Filled:
        """One gap; a venue that is away or refuses it is said, and the next gap is tried."""
        filled = Filled(work.gap)
        try:
            for first, last in near(work.spans, PAGE_TRADES):
                await self._span(work, Wanted(work.gap.symbol, first, last, work.gap.previous_us, work.gap.next_us), filled)
        except FeedError as exc:
            filled.trouble = str(exc)
        filled.unanswered = without(work.spans, [*filled.published, *filled.absent])
        return filled

    async def _span(self, work: Work, wanted: Wanted, filled: Filled) -> None:
        left = within(work.spans, wanted.first, wanted.last)
        async for page in pages(self.client, wanted, new_id=self.ids.one):
            published = await self._publish(page, left)
            left = without(left, published)
            absent = within(left, *page.covers) if page.covers else []
            left = without(left, absent)
            filled.published += published
            filled.absent += absent
            self.notes.add(work.gap.symbol, published=published, absent=absent)
            if not left:
                return

    async def _publish(self, page: Page, spans: list[Span]) -> list[Span]:
        """Those of a page's trades that are wanted, in order; durable when it returns."""
        rows = {t["source_sequence"]: t for t in page.trades if any(first <= t["source_sequence"] <= last for first, last in spans)}
        if not rows:
            return []
        ordered = [{**row, "vendor_data": {**row["vendor_data"], **dict([FEED])}} for _, row in sorted(rows.items())]
        await self.publisher.records(records_of(ordered, self.schema, self.schema_id))
        await self.publisher.flush()
        return of_numbers(rows)


def _words(spans: Sequence[Span]) -> str:
    """The first few, as 7, 9-12."""
    whole = merged(spans)
    said = [str(first) if first == last else f"{first}-{last}" for first, last in whole[:SAID_SPANS]]
    return ", ".join([*said, *(["..."] if len(whole) > SAID_SPANS else [])])
