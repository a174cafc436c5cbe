"""A Kafka topic whose backlog appears at once: it lies in an open transaction until it is let go, and workers read committed records."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest

from k2stream.records import TopicPartition
from k2stream.transport.kafka_sink import KafkaSink
from tests.bench.market import PARTITIONS, TOPIC
from tests.bench.spool import Producer, recoded

TRANSACTION = "bench"
TRANSACTION_MS = 900_000
PRODUCE_MS = 30_000
ALL_REPLICAS = -1
RETRY_SECONDS = 0.05
NOT_YET = (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    UnknownTopicOrPartitionError,
)


class HeldBack:
    """An open transaction on the topic; on one event loop."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = AIOKafkaClient(bootstrap_servers=address, client_id="bench")
        self._producer = Producer(-1, -1)
        self._coordinator = -1

    async def __aenter__(self) -> "HeldBack":
        await self._client.bootstrap()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def fill(self, batches: Iterable[tuple[int, int, bytes]], codec: str) -> int:
        """A new topic with these log batches, (partition, records, uncompressed bytes) each, that nobody may read yet; their bytes in `codec`."""
        await new_topic(self._address)
        await self._begin()
        under_way: dict[int, asyncio.Task[None]] = {}
        sequences, size = dict.fromkeys(range(PARTITIONS), 0), 0
        for partition, records, raw in batches:
            batch = recoded(raw, codec, self._producer, sequences[partition])
            sequences[partition] += records
            size += len(batch)
            if partition in under_way:
                await under_way[partition]
            under_way[partition] = asyncio.create_task(self._append(partition, batch))
        await asyncio.gather(*under_way.values())
        return size

    async def let_go(self) -> None:
        """Commit: whoever reads committed records sees all of them from now on."""
        await self._until_done(lambda: self._client.send(self._coordinator, EndTxnRequest(TRANSACTION, *self._who(), True)))

    def _who(self) -> tuple[int, int]:
        return self._producer.id, self._producer.epoch

    async def _begin(self) -> None:
        self._coordinator = await self._found_coordinator()
        answer = await self._until_done(lambda: self._client.send(self._coordinator, InitProducerIdRequest(TRANSACTION, TRANSACTION_MS)))
        self._producer = Producer(answer.producer_id, answer.producer_epoch)
        request = AddPartitionsToTxnRequest(TRANSACTION, *self._who(), [(TOPIC, list(range(PARTITIONS)))])
        await self._until_done(lambda: self._client.send(self._coordinator, request))

    async def _found_coordinator(self) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, TRANSACTION))
            except CoordinatorNotAvailableError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _append(self, partition: int, raw: bytes) -> None:
        leader = self._client.cluster.leader_for_partition(TopicPartition(TOPIC, partition))
        request = ProduceRequest(TRANSACTION, ALL_REPLICAS, PRODUCE_MS, [(TOPIC, [(partition, raw)])])
        while code := (await self._client.send(leader if leader is not None else self._coordinator, request)).topics[0][1][0][1]:
            if for_code(code) not in NOT_YET:
                raise for_code(code)()
            await asyncio.sleep(RETRY_SECONDS)  # a topic made a moment ago; nothing was appended

    async def _until_done(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """The answer without an error; what a coordinator cannot do yet is asked again."""
        while True:
            answer = await question()
            codes = [answer.error_code] if hasattr(answer, "error_code") else [code for _, found in answer.errors for _, code in found]
            error = next((for_code(code) for code in codes if code), None)
            if error is None:
                return answer
            if error not in NOT_YET:
                raise error()
            await asyncio.sleep(RETRY_SECONDS)


def new_topic_now(address: str) -> None:
    """The same, outside of a loop."""
    asyncio.run(new_topic(address))


async def new_topic(address: str) -> None:
    """The topic without a record; whatever it held is gone."""
    admin, sink = AIOKafkaAdminClient(bootstrap_servers=address), KafkaSink(address)
    await admin.start()
    try:
        while TOPIC in await sink.topics():
            await admin.delete_topics([TOPIC])
            await asyncio.sleep(RETRY_SECONDS)
        await sink.create_topic(TOPIC, PARTITIONS, {})
    except TopicAlreadyExistsError:
        await asyncio.sleep(RETRY_SECONDS)
    finally:
        await sink.close()
        await admin.close()
