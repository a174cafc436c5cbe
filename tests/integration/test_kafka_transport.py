"""What only a real broker can show: a group of two workers, compaction, and a broker that is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from k2stream.records import Kind, TopicPartition
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.worker_process import free_port
from tests.integration.transport_site import KafkaSite, Worker, numbered, running


@pytest.fixture
async def site(kafka: str) -> AsyncIterator[KafkaSite]:
    """The broker that tests may write to."""
    made = KafkaSite(kafka)
    yield made
    await made.close()


@pytest.mark.kafka
async def test_second_worker_takes_half_and_both_read_from_the_vector(site: KafkaSite, tmp_path: Path) -> None:
    """A rebalance revokes through the handler, splits the partitions, and no offset is read from anywhere but the vector."""
    topic = await site.topic(partitions=8)
    tps = {TopicPartition(topic, p) for p in range(8)}
    first = Worker(site, tmp_path, [topic])
    second = Worker(site, tmp_path, [topic], group=first.group)
    async with running(first):
        for tp in sorted(tps):
            await numbered(site, tp, [3])
        for tp in sorted(tps):
            await first.until_read(tp, 3)
            first.handler.positions_of[tp] = second.handler.positions_of[tp] = 3
        async with running(second):
            await second.until(lambda: len(second.consumer.assignment()) == 4, "the second worker did not get its half")
            await first.until(lambda: len(first.consumer.assignment()) == 4, "the first worker kept too much")
            for tp in sorted(tps):
                await numbered(site, tp, [2])
            seconds = {TopicPartition(*tp) for tp in second.consumer.assignment()}
            for tp in sorted(tps):
                await (second if tp in seconds else first).until_read(tp, 5)
        await first.until(lambda: len(first.consumer.assignment()) == 8, "what the second worker left was not taken over")

    assert first.handler.revoked[0] == tps
    for tp in tps:
        assert [r.offset for r in second.rows(tp)] == ([3, 4] if tp in seconds else [])


@pytest.mark.kafka
async def test_policy_of_a_topic_is_the_brokers_word(site: KafkaSite, tmp_path: Path) -> None:
    """Only where the broker says compact do missing offsets count as holes."""
    compacted, kept = await site.topic(config={"cleanup.policy": "compact,delete"}), await site.topic()
    async with running(Worker(site, tmp_path, [compacted, kept])) as worker:
        for topic in (compacted, kept):
            await numbered(site, TopicPartition(topic, 0), [1])
            await worker.until_read(TopicPartition(topic, 0), 1)
        answers = [worker.consumer.is_compacted(topic) for topic in (compacted, kept)]

    assert answers == [True, False]


@pytest.mark.kafka
async def test_open_transaction_is_the_end_of_the_log(site: KafkaSite, tmp_path: Path) -> None:
    """Rows of a transaction that may yet be aborted are neither delivered nor counted; decided, its offsets are a hole."""
    from aiokafka import AIOKafkaProducer

    tp = TopicPartition(await site.topic(), 0)
    await numbered(site, tp, [2])
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        async with AIOKafkaProducer(bootstrap_servers=site.bootstrap, transactional_id=tp.topic) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(tp.topic, b"perhaps", partition=0)
            await worker.until_read(tp, 2)
            assert await worker.consumer.bounds({tp}) == {tp: (0, 2)}
            await producer.abort_transaction()
        await worker.until_read(tp, 4)

    assert worker.values(tp) == [b"0", b"1"]
    assert {b.kind for batch in worker.batches for b in batch.log_batches} == {Kind.DATA, Kind.ABORTED, Kind.CONTROL}


async def test_worker_waits_for_a_broker_that_is_away_and_ends_when_told(tmp_path: Path) -> None:
    """Nobody listens: the start neither fails nor hangs for ever, and stopping takes no more than seconds."""

    class Nobody(KafkaSite):
        def __init__(self) -> None:
            self.url = f"k2kafka://127.0.0.1:{free_port()}"
            self.sink = KafkaSink("127.0.0.1:1")

    worker = Worker(Nobody(), tmp_path, ["anything"])
    worker.app.finalize()
    starting = asyncio.create_task(worker.app.start())
    await asyncio.sleep(1.0)
    assert not starting.done()
    assert worker.app.producer.started
    stopping = time.monotonic()
    await worker.app.stop()
    await asyncio.wait({starting}, timeout=5)

    assert starting.done()
    assert time.monotonic() - stopping < 10
