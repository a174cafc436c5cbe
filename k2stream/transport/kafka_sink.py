"""Appending whole log batches to Kafka: the produce request carries the bytes as they were built.

aiokafka's producer collects records into batches of its own; this one keeps the writer's borders, so one call is one log batch, appended
or not as a whole.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import LeaderNotAvailableError, NodeNotReadyError, OffsetOutOfRangeError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from k2stream.errors import TransportError
from k2stream.records import HEADER, LogBatch, TopicPartition
from k2stream.transport import kafka_admin
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.kafka_link import Answer, KafkaLink
from k2stream.transport.sink import Outgoing, TopicState

E_NO_TOPIC = "Topic {topic} does not exist on {bootstrap}. Create it, or correct the name."

ASK_SECONDS = 3.0
"""A question is cheap to repeat, and a worker's health asks every few seconds."""
ALL_REPLICAS = -1
MAX_REPLICATION = 3
EARLIEST, LATEST = -2, -1
FETCH_WAIT_MS = 100
NO_TRANSACTION_MS = 0
READ_UNCOMMITTED, READ_COMMITTED = 0, 1


class KafkaSink:
    """LogSink over one client, opened at the first call; to be used on one event loop.

    A call that writes waits for a broker that is away, up to `timeout_seconds`, and is repeated where it is certain that nothing was
    appended; one that only asks waits ASK_SECONDS. An outcome that nobody knows (the connection broke under way) is raised as
    TransportError: the batch may be there.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        isolation_level: str = "read_committed",
        timeout_seconds: float = 30.0,
        replication: int | None = None,
        auth: Mapping[str, Any] | None = None,
    ) -> None:
        """`bootstrap`: `host:port`, or several with commas; `auth`: as `security_options` gives it."""
        self._isolation = READ_COMMITTED if isolation_level == "read_committed" else READ_UNCOMMITTED
        self._timeout_seconds, self._ask_seconds = timeout_seconds, min(ASK_SECONDS, timeout_seconds)
        self._replication = replication
        access = {"security_protocol": "PLAINTEXT", **(auth or {}), "bootstrap_servers": bootstrap.split(",")}
        self._link = KafkaLink(access, request_seconds=timeout_seconds)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append `records` (at least one) as one lz4 log batch and give the offset of the first."""
        return await self.send_batch(topic, partition, build_log_batch(records))

    async def send_batch(self, topic: str, partition: int, raw: bytes) -> int:
        """Append one prebuilt log batch (its base offset is replaced) and give the offset of its first record."""
        tp = TopicPartition(topic, partition)
        timeout_ms = int(self._timeout_seconds * 1000)
        request = ProduceRequest(None, ALL_REPLICAS, timeout_ms, [(topic, [(partition, raw)])])
        return int((await self._ask_leader(tp, request, f"append to {topic}/{partition}", writes=True))[0])

    async def new_producer_id(self) -> int:
        """One that nobody else has."""

        async def ask(client: AIOKafkaClient) -> int:
            answer = await client.send(_any_node(client), InitProducerIdRequest(None, NO_TRANSACTION_MS))
            if answer.error_code:
                raise for_code(answer.error_code)()
            return int(answer.producer_id)

        return await self._ask(ask, "give a producer id")

    async def partitions(self, topic: str) -> int:
        """Number of partitions; TransportError if the topic does not exist."""
        try:
            return (await self.topics())[topic]
        except KeyError:
            raise TransportError(E_NO_TOPIC.format(topic=topic, bootstrap=self._link.bootstrap)) from None

    async def create_topic(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic unless it exists; an existing one is left as it is."""

        async def create(client: AIOKafkaClient) -> None:
            metadata = await client.send(_any_node(client), MetadataRequest([]))
            replication = self._replication or min(MAX_REPLICATION, len(metadata.brokers))
            wanted: tuple[Any, ...] = (topic, partitions, replication, [], sorted(config.items()))
            request = CreateTopicsRequest([wanted], int(self._timeout_seconds * 1000), False)
            response = await client.send(metadata.controller_id, request)
            _, code, text = response.topic_errors[0]
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(text)

        await self._ask(create, f"create topic {topic}")
        await self._wait_for_leaders(topic)

    async def topics(self) -> Mapping[str, int]:
        """Every topic and its number of partitions; Kafka's internal ones are left out."""

        async def ask(client: AIOKafkaClient) -> dict[str, int]:
            metadata = await client.fetch_all_metadata()
            return {t: len(metadata.partitions_for_topic(t) or ()) for t in metadata.topics(exclude_internal_topics=True)}

        return await self._link.ask(ask, "list its topics", seconds=self._ask_seconds, is_repeatable=True)

    async def describe_topics(self) -> Mapping[str, TopicState]:
        """Every topic but Kafka's own."""
        return await self._link.ask(kafka_admin.describe_topics, "describe its topics", seconds=self._ask_seconds, is_repeatable=True)

    async def grow(self, topic: str, partitions: int) -> None:
        """Give a topic so many partitions; one that has as many or more is left as it is."""
        await self._change(lambda client, ms: kafka_admin.grow(client, topic, partitions, timeout_ms=ms), f"grow topic {topic}")
        await self._wait_for_leaders(topic)

    async def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these of a topic's settings; the others stay as they are."""
        await self._change(lambda client, _: kafka_admin.configure(client, topic, config), f"configure topic {topic}")

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic and its records; one that does not exist is no error."""
        await self._change(lambda client, ms: kafka_admin.delete_topic(client, topic, timeout_ms=ms), f"delete topic {topic}")

    async def _change(self, change: Callable[[AIOKafkaClient, int], Awaitable[None]], action: str) -> None:
        timeout_ms = int(self._timeout_seconds * 1000)
        await self._link.ask(lambda client: change(client, timeout_ms), action, seconds=self._timeout_seconds, is_repeatable=True)

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """First offset still kept and the offset after the last one (the last stable one under read_committed)."""
        return await self._offset(tp, EARLIEST), await self._offset(tp, LATEST)

    async def log_batch_at(self, tp: TopicPartition, offset: int) -> LogBatch | None:
        """The log batch that holds `offset`, or the first one behind it; None if the log keeps none there."""
        # A partition's first batch comes whole, however few bytes are asked for.
        request = FetchRequest(FETCH_WAIT_MS, 1, 1, self._isolation, [(tp.topic, [(tp.partition, offset, 1)])])
        try:
            raw = bytes((await self._ask_leader(tp, request, f"read {tp.topic}/{tp.partition} at {offset}"))[-1] or b"")
        except TransportError as exc:
            if isinstance(exc.__cause__, OffsetOutOfRangeError):
                return None
            raise
        return LogBatch.parse(tp.topic, tp.partition, raw) if len(raw) >= HEADER.size else None

    async def offset_at(self, tp: TopicPartition, *, timestamp_ms: int) -> int:
        """First offset whose record is not older than that; the end of the log if there is none."""
        found = await self._offset(tp, timestamp_ms)
        return found if found >= 0 else await self._offset(tp, LATEST)

    async def close(self) -> None:
        """Let go of the connections; calling it twice is harmless."""
        await self._link.close()

    async def _offset(self, tp: TopicPartition, timestamp: int) -> int:
        request = OffsetRequest(-1, self._isolation, [(tp.topic, [(tp.partition, timestamp)])])
        return int((await self._ask_leader(tp, request, f"give offsets of {tp.topic}/{tp.partition}"))[-1])

    async def _ask(self, question: Callable[[AIOKafkaClient], Awaitable[Answer]], action: str) -> Answer:
        """Of something that may be done twice without harm."""
        return await self._link.ask(question, action, seconds=self._timeout_seconds, is_repeatable=True)

    async def _ask_leader(self, tp: TopicPartition, request: Any, action: str, *, writes: bool = False) -> Sequence[Any]:
        """Fields after the error code of the one partition that was asked for."""

        async def ask(client: AIOKafkaClient) -> Sequence[Any]:
            leader = await self._leader(client, tp)
            response = await client.send(leader, request)
            _, code, *answered = response.topics[0][1][0]
            fields: list[Any] = answered
            if code:
                client.force_metadata_update()
                raise for_code(code)()
            return fields

        return await self._link.ask(ask, action, seconds=self._timeout_seconds if writes else self._ask_seconds, is_repeatable=not writes)

    async def _leader(self, client: AIOKafkaClient, tp: TopicPartition) -> int:
        """Its node, by what is known or else asked for; TransportError if there is no such partition."""
        leader = client.cluster.leader_for_partition(tp)
        if leader is None:
            if not await client.force_metadata_update():
                raise NodeNotReadyError
            leader = client.cluster.leader_for_partition(tp)
        if leader is None and tp.partition not in (client.cluster.partitions_for_topic(tp.topic) or ()):
            raise TransportError(E_NO_TOPIC.format(topic=f"{tp.topic}/{tp.partition}", bootstrap=self._link.bootstrap))
        if leader is None or leader == -1:
            client.force_metadata_update()
            raise LeaderNotAvailableError
        return int(leader)

    async def _wait_for_leaders(self, topic: str) -> None:
        """A topic just created has no leaders for a moment; whoever writes next must not stumble over it."""

        async def look(client: AIOKafkaClient) -> None:
            await client.force_metadata_update()
            known = client.cluster.partitions_for_topic(topic)
            available = client.cluster.available_partitions_for_topic(topic)
            if not known or known != available:
                raise LeaderNotAvailableError

        await self._ask(look, f"elect leaders of {topic}")


def _any_node(client: AIOKafkaClient) -> int:
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError
    return int(node)
