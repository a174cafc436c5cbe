"""Recordings into the log that the settings name: topics made, contracts registered, ticks published; feed, registry and log meet here."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from k2stream.clock import SystemClock
from k2stream.decode.registry import open_registry
from k2stream.feed import recorded
from k2stream.feed.publisher import Progress
from k2stream.feed.recorded import Published, Script
from k2stream.feed.recording import MessageIds
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.topics import KINDS, TopicName
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink

RECORDED_TRADES = 202_546
"""Trades in the recordings: 200,545 of the ASX, 2,001 of Binance."""


def publish_trades(settings: Settings, *, rows: int | None = None, progress: Progress | None = None) -> list[Published]:
    """Publish the recorded trades, or the first `rows` of them. At least once: publishing again makes duplicates, which dedup drops.

    Raises K2Error, with what was published before still in the log.
    """
    recordings = recorded.trades(ids=MessageIds(uuid4()), now_us=SystemClock().now_us(), rows=rows)
    return asyncio.run(_publish(settings, [recorded.script(recording) for recording in recordings], progress))


async def _publish(settings: Settings, scripts: Sequence[Script], progress: Progress | None) -> list[Published]:
    sink = open_sink(settings)
    try:
        schema_ids = {script.recording.topic: await prepare_topic(settings, sink, script.recording.topic) for script in scripts}
        return await recorded.play(sink, scripts, schema=KINDS["trades"].schema, schema_ids=schema_ids, progress=progress)
    finally:
        await sink.close()


async def prepare_topic(settings: Settings, sink: LogSink, topic: str) -> int:
    """Make a market topic where it is missing and register its contract; gives the schema's id."""
    kind = KINDS[TopicName.parse(topic).data_type]
    await sink.create_topic(topic, kind.partitions or settings.partitions, kind.config)
    return await asyncio.to_thread(open_registry(settings).register, f"{topic}-value", avro_schema(kind.schema))
