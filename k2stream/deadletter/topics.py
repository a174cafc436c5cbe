"""The topics of dead letters, made and kept as they have to be."""

from collections.abc import Collection

import structlog

from k2stream.errors import TransportError
from k2stream.topics import KEPT_30_DAYS
from k2stream.transport.sink import LogSink

log = structlog.get_logger(__name__)

NEEDED = ("max.message.bytes", "message.timestamp.type")
"""Without these a log refuses letters: of large records, which base64 makes larger, and of records whose time it does not take."""


async def make_letter_topic(sink: LogSink, topic: str, partitions: int) -> int:
    """Make a topic that does not exist yet; how many partitions it has. Raises TransportError."""
    await sink.create_topic(topic, partitions, KEPT_30_DAYS)
    return await sink.partitions(topic)


async def make_letter_topics(sink: LogSink, topics: Collection[str], partitions: int) -> None:
    """Make those that do not exist, and give those that do what they need to take every letter. Raises TransportError if they cannot be made.

    A log that lets nobody change its topics is told of, and used as it is: what it refuses goes without the record's bytes.
    """
    for topic in topics:
        await sink.create_topic(topic, partitions, KEPT_30_DAYS)
    try:
        existing = await sink.describe_topics()
        for topic in existing.keys() & set(topics):
            lacks = {name: KEPT_30_DAYS[name] for name in NEEDED if existing[topic].config.get(name) != KEPT_30_DAYS[name]}
            if lacks:
                await sink.configure(topic, lacks)
    except TransportError as exc:
        log.warning("letters.topics_unchanged", wanted=NEEDED, cause=str(exc), then="letters that they refuse go without their records' bytes")
