"""Reading a topic from its beginning to where it ends now: for audits and lists, not for agents."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import KafkaError

from k2stream.errors import TransportError
from k2stream.records import Record, TopicPartition
from k2stream.settings import Settings
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_path import checked
from k2stream.transport.open import open_sink

READ_BYTES = 4 << 20
KAFKA_SCHEME = "k2kafka://"


def read_topics(settings: Settings, topics: Sequence[str]) -> Iterator[Record]:
    """Every record that the log keeps of `topics`; a topic that does not exist has none. Raises TransportError."""
    broker = settings.broker_url()
    if broker.startswith(KAFKA_SCHEME):
        yield from asyncio.run(_read_kafka(settings, broker.removeprefix(KAFKA_SCHEME), topics))
        return
    with closing(EmbeddedLog(checked(settings.home_path("log")))) as log:
        yield from _read_embedded(log, topics)


def read_on(settings: Settings, positions: Mapping[TopicPartition, int]) -> Iterator[Record]:
    """Every record from these offsets to where each partition ends now, in offset order of each. Raises TransportError."""
    broker = settings.broker_url()
    if broker.startswith(KAFKA_SCHEME):
        yield from asyncio.run(_read_kafka_on(broker.removeprefix(KAFKA_SCHEME), positions))
        return
    with closing(EmbeddedLog(checked(settings.home_path("log")))) as log:
        for tp, position in positions.items():
            yield from _read_embedded_on(log, tp, position)


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


async def _read_kafka(settings: Settings, bootstrap: str, topics: Sequence[str]) -> list[Record]:
    sink = open_sink(settings)
    try:
        existing = await sink.topics()
    finally:
        await sink.close()
    tps = [KafkaTopicPartition(topic, p) for topic in topics for p in range(existing.get(topic, 0))]
    if not tps:
        return []
    async with _consumer(bootstrap) as consumer:
        return await _read_from(consumer, await consumer.beginning_offsets(tps))


async def _read_kafka_on(bootstrap: str, positions: Mapping[TopicPartition, int]) -> list[Record]:
    async with _consumer(bootstrap) as consumer:
        return await _read_from(consumer, {KafkaTopicPartition(*tp): position for tp, position in positions.items()})


@asynccontextmanager
async def _consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, isolation_level="read_committed")
    try:
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()
    except KafkaError as exc:
        raise TransportError(f"Kafka at {bootstrap} could not be read: {exc}. Is it running, and is the address right?") from exc


async def _read_from(consumer: AIOKafkaConsumer, positions: Mapping[KafkaTopicPartition, int]) -> list[Record]:
    """`seek_to_beginning` would race with the consumer's own look for a position, and lose: positions are given."""
    consumer.assign(list(positions))
    ends = await consumer.end_offsets(list(positions))
    for tp, position in positions.items():
        consumer.seek(tp, position)
    found: list[Record] = []
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        for tp, messages in (await consumer.getmany(timeout_ms=500)).items():
            found += [
                Record(tp.topic, m.partition, m.offset, m.timestamp, m.key, m.value, tuple((k, bytes(v or b"")) for k, v in m.headers))
                for m in messages
                if m.offset < ends[tp]
            ]
    return found
