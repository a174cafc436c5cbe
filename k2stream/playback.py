"""Recordings into the log that the settings name: topics made, contracts registered, ticks published; feed, registry and log meet here."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import uuid4

from k2stream.clock import SystemClock
from k2stream.decode.registry import Registry, open_registry
from k2stream.feed import recorded
from k2stream.feed.guard import SessionGuard
from k2stream.feed.publisher import Progress
from k2stream.feed.recorded import Published, Script
from k2stream.feed.recording import MessageIds, Recording
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.topics import KINDS, TopicName
from k2stream.topics.needed import make, tell
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink

RECORDED = {"trades": 202_546, "quotes": 169_629, "instruments": 4}
"""Rows of the recordings: trades are 200,545 of the ASX and 2,001 of Binance, the others of the ASX."""


def publish_recorded(settings: Settings, what: str = "trades", *, rows: int | None = None, progress: Progress | None = None) -> list[Published]:
    """Publish a recording of RECORDED, or its first `rows` rows. At least once: publishing again makes duplicates, which dedup drops
    (of instruments: newer records, which say the same).

    Raises K2Error, with what was published before still in the log.
    """
    recordings = RECORDINGS[what](settings, rows=rows)
    schema_ids = prepare_topics(settings, [r.topic for r in recordings])
    return publish(settings, [recorded.script(r) for r in recordings], schema_ids, progress=progress)


def recorded_trades(settings: Settings, *, rows: int | None = None) -> list[Recording]:
    """The recorded trades, or the first `rows` of them; raises FeedError if a session is not as it was published before."""
    return _admitted(settings, recorded.trades(ids=MessageIds(uuid4()), now_us=SystemClock().now_us()), rows)


def recorded_quotes(settings: Settings, *, rows: int | None = None) -> list[Recording]:
    """The recorded quotes, likewise."""
    return _admitted(settings, recorded.quotes(ids=MessageIds(uuid4()), now_us=SystemClock().now_us()), rows)


def recorded_instruments(_settings: Settings, *, rows: int | None = None) -> list[Recording]:
    """The recorded reference data; it has no sessions."""
    return recorded.instruments(ids=MessageIds(uuid4()), now_us=SystemClock().now_us(), rows=rows)


RECORDINGS = {"trades": recorded_trades, "quotes": recorded_quotes, "instruments": recorded_instruments}


def _admitted(settings: Settings, whole: list[Recording], rows: int | None) -> list[Recording]:
    SessionGuard(settings.home_path("feed", "sessions.json")).admit(whole)
    return recorded.limited(whole, rows)


def prepare_topics(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    """Make market topics that are missing and register their contracts; gives the schema ids by topic."""
    return asyncio.run(_prepare(settings, topics))


def publish(settings: Settings, scripts: Sequence[Script], schema_ids: Mapping[str, int], *, progress: Progress | None = None) -> list[Published]:
    """Publish scripts to their topics; raises K2Error."""
    return asyncio.run(_publish(settings, scripts, schema_ids, progress))


async def _publish(settings: Settings, scripts: Sequence[Script], schema_ids: Mapping[str, int], progress: Progress | None) -> list[Published]:
    sink = open_sink(settings)
    try:
        return await recorded.play(sink, scripts, schema_ids=schema_ids, progress=progress)
    finally:
        await sink.close()


async def _prepare(settings: Settings, topics: Sequence[str]) -> dict[str, int]:
    sink, registry = open_sink(settings), open_registry(settings)
    try:
        return {topic: await prepare_topic(settings, sink, registry, topic) for topic in topics}
    finally:
        await sink.close()


async def prepare_topic(settings: Settings, sink: LogSink, registry: Registry, topic: str) -> int:
    """Make a market topic where it is missing, as it is declared, and register its contract; gives the schema's id.

    A topic that exists otherwise is warned of, once both are done: whoever tries again until they are says it once.
    """
    name = TopicName.parse(topic)
    differences = await make(settings, sink, topic)
    schema_id = await asyncio.to_thread(registry.register, name.subject, avro_schema(KINDS[name.data_type].schema))
    tell(differences)
    return schema_id
