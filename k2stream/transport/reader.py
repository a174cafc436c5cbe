"""Reading a topic from its beginning to where it ends now: for audits and lists, not for agents."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from yarl import URL

from k2stream.records import Record, TopicPartition
from k2stream.settings import Settings
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_path import folder_of
from k2stream.transport.open import open_sink

READ_BYTES = 4 << 20
KAFKA = "k2kafka://"


def read_topics(settings: Settings, topics: Sequence[str]) -> Iterator[Record]:
    """Every record that the log keeps of `topics`; a topic that does not exist has none. Raises TransportError."""
    if settings.broker_url().startswith(KAFKA):
        yield from _read_kafka(settings, topics)
        return
    with closing(EmbeddedLog(_folder(settings))) as log:
        yield from _read_embedded(log, topics)


def read_on(settings: Settings, positions: Mapping[TopicPartition, int]) -> Iterator[Record]:
    """Every record from these offsets to where each partition ends now, in offset order of each. Raises TransportError."""
    if settings.broker_url().startswith(KAFKA):
        yield from _read_kafka_on(settings, positions)
        return
    with closing(EmbeddedLog(_folder(settings))) as log:
        for tp, position in positions.items():
            yield from _read_embedded_on(log, tp, position)


def _folder(settings: Settings) -> Path:
    return folder_of([URL(settings.broker_url())])


def _read_embedded(log: EmbeddedLog, topics: Sequence[str]) -> Iterator[Record]:
    existing = log.topics()
    for topic in topics:
        for partition in range(existing[topic].partitions if topic in existing else 0):
            tp = TopicPartition(topic, partition)
            yield from _read_embedded_on(log, tp, log.bounds(tp)[0])


def _read_embedded_on(log: EmbeddedLog, tp: TopicPartition, position: int) -> Iterator[Record]:
    _, end = log.bounds(tp)
    while position < end and (log_batches := log.read(tp, position, READ_BYTES)):
        for log_batch in log_batches:
            yield from log_batch.records()
        position = log_batches[-1].last_offset + 1


def _read_kafka(settings: Settings, topics: Sequence[str]) -> Iterator[Record]:
    existing = asyncio.run(_partitions(settings))
    positions = {TopicPartition(topic, p): None for topic in topics for p in range(existing.get(topic, 0))}
    if positions:
        yield from _read_kafka_on(settings, positions)


async def _partitions(settings: Settings) -> Mapping[str, int]:
    sink = open_sink(settings)
    try:
        return await sink.topics()
    finally:
        await sink.close()


def _read_kafka_on(settings: Settings, positions: Mapping[TopicPartition, int | None]) -> Iterator[Record]:
    """From each position, or from the log's beginning where it is None; one fetch at a time is held in memory."""
    from k2stream.transport.kafka_reader import KafkaReader  # a home without Kafka does not pay for its client

    with asyncio.Runner() as runner:
        reader = runner.run(KafkaReader.open(settings, positions))
        try:
            while reader.ends:
                yield from runner.run(reader.fetch())
        finally:
            runner.run(reader.close())
