"""Where topics begin and end now, for whoever waits until all of it is committed or must accept what is lost."""

import asyncio
from collections.abc import Sequence

from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.open import open_sink


def ends_of(settings: Settings, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """The offset after the last one of every partition of `topics`; raises TransportError if one does not exist."""
    return asyncio.run(_ends_of(settings, topics))


async def _ends_of(settings: Settings, topics: Sequence[str]) -> dict[TopicPartition, int]:
    sink = open_sink(settings)
    try:
        tps = [TopicPartition(topic, p) for topic in topics for p in range(await sink.partitions(topic))]
        return {tp: (await sink.bounds(tp))[1] for tp in tps}
    finally:
        await sink.close()


def begins_of(settings: Settings) -> dict[TopicPartition, int]:
    """The first offset still kept of every partition of every topic; raises TransportError."""
    return asyncio.run(_begins_of(settings))


async def _begins_of(settings: Settings) -> dict[TopicPartition, int]:
    sink = open_sink(settings)
    try:
        tps = [TopicPartition(topic, p) for topic, partitions in (await sink.topics()).items() for p in range(partitions)]
        return {tp: (await sink.bounds(tp))[0] for tp in tps}
    finally:
        await sink.close()
