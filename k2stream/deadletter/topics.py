"""The topics of dead letters, made and kept as they have to be."""

import asyncio
from collections.abc import Collection, Sequence

import structlog

from k2stream.errors import SettingsError, TransportError
from k2stream.settings import Settings
from k2stream.topics import KEPT_30_DAYS
from k2stream.topics.files import letter_terms
from k2stream.topics.plan import Declared
from k2stream.transport.sink import LogSink

log = structlog.get_logger(__name__)

NEEDED = ("max.message.bytes", "message.timestamp.type")
"""Without these a log refuses letters: of large records, which base64 makes larger, and of records whose time it does not take."""


async def make_letter_topic(sink: LogSink, settings: Settings, topic: str) -> int:
    """Make a topic that does not exist yet, as it is declared; how many partitions it has. Raises TransportError."""
    (wanted,) = await _wanted(settings, [topic])
    await sink.create_topic(topic, wanted.partitions, wanted.config)
    return await sink.partitions(topic)


async def make_letter_topics(sink: LogSink, settings: Settings, topics: Collection[str]) -> None:
    """Make those that do not exist, and give those that do what they need to take every letter. Raises TransportError if they cannot be made.

    A log that lets nobody change its topics is told of, and used as it is: what it refuses goes without the record's bytes.
    """
    wanted = await _wanted(settings, topics)
    for topic in wanted:
        await sink.create_topic(topic.name, topic.partitions, topic.config)
    try:
        existing = await sink.describe_topics()
        for topic in wanted:
            found = existing[topic.name].config if topic.name in existing else topic.config
            lacks = {name: topic.config[name] for name in NEEDED if found.get(name) != topic.config[name]}
            if lacks:
                await sink.configure(topic.name, lacks)
    except TransportError as exc:
        log.warning("letters.topics_unchanged", wanted=NEEDED, cause=str(exc), then="letters that they refuse go without their records' bytes")


async def _wanted(settings: Settings, topics: Collection[str]) -> Sequence[Declared]:
    """As the file declares them. One that cannot be read keeps no letter from its topic."""
    try:
        return await asyncio.to_thread(letter_terms, settings, topics)
    except SettingsError as exc:
        log.warning("letters.topics_undeclared", cause=str(exc), then=f"missing ones are made with {settings.partitions} partitions and 30 days")
        return [Declared(topic, settings.partitions, KEPT_30_DAYS) for topic in topics]
