"""The letters that the dead letter topics still keep, for audits."""

import asyncio
from collections.abc import Iterator

from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.topics import LETTER_TOPICS
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_topics

Origin = tuple[str, int, int]
"""Topic, partition and offset of the record that a letter is about."""


def origins_of_letters(settings: Settings) -> Iterator[Origin]:
    """Each letter's key; one written twice comes twice. Raises TransportError."""
    for record in read_topics(settings, LETTER_TOPICS):
        if record.key is not None:
            topic, partition, offset = record.key.decode().rsplit("/", 2)
            yield topic, int(partition), int(offset)


def letters_dropped(settings: Settings) -> int:
    """How many letters retention has taken: the first offsets still kept, added up."""
    return asyncio.run(_dropped(settings))


async def _dropped(settings: Settings) -> int:
    sink = open_sink(settings)
    try:
        existing = await sink.topics()
        tps = [TopicPartition(topic, p) for topic in LETTER_TOPICS for p in range(existing.get(topic, 0))]
        return sum([(await sink.bounds(tp))[0] for tp in tps])
    finally:
        await sink.close()
