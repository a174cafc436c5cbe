"""Where topics begin and end now, for whoever waits until all of it is committed or must accept what is lost."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

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
    return {tp: begin for tp, (begin, _) in bounds_of(settings, list).items()}


def bounds_of(settings: Settings, chosen: Callable[[Iterable[str]], Iterable[str]]) -> dict[TopicPartition, tuple[int, int]]:
    """The first offset still kept and the one after the last, of every partition of those topics that are `chosen`; raises TransportError."""
    return asyncio.run(_bounds_of(settings, chosen))


async def _bounds_of(settings: Settings, chosen: Callable[[Iterable[str]], Iterable[str]]) -> dict[TopicPartition, tuple[int, int]]:
    sink = open_sink(settings)
    try:
        topics = await sink.topics()
        return {tp: await sink.bounds(tp) for topic in chosen(topics) for tp in (TopicPartition(topic, p) for p in range(topics[topic]))}
    finally:
        await sink.close()
