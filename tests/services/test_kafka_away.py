"""A broker that is not there yet, stops, or hangs, and each of our clients in turn: told within seconds, well again by itself."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from k2stream.clock import Deadline
from k2stream.dev.kafka import Kafka
from k2stream.errors import TransportError
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.transport.reader import read_topics
from k2stream.worker_process import free_port
from tests.integration.transport_site import KafkaSite, Worker, numbered, running, values

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
TOLD_SECONDS = 7.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    """One of this test's own, not started yet; its port is known."""
    made = Kafka(tmp_path / "kafka", Settings())
    made.port = free_port()
    yield made
    if made.pid:
        os.kill(made.pid, signal.SIGCONT)
    made.stop()


@pytest.fixture
async def sink(broker: Kafka) -> AsyncIterator[KafkaSink]:
    """One client for the whole test: nobody opens it anew."""
    made = KafkaSink(broker.address)
    yield made
    await made.close()
    gc.collect()  # what aiokafka left open would warn here, and warnings are errors


async def is_told(sink: KafkaSink) -> str:
    """The sentence of a question that nobody answers; AssertionError if that took too long."""
    deadline = Deadline.after(TOLD_SECONDS)
    with pytest.raises(TransportError) as told:
        await sink.topics()
    assert not deadline.is_over()
    assert told.value.is_retriable
    return str(told.value)


async def test_sink_before_its_broker_says_so_and_writes_when_it_comes(broker: Kafka, sink: KafkaSink) -> None:
    """Questions and writes fail within seconds with the address; the same sink works once somebody answers."""
    said = await is_told(sink)
    assert broker.address in said
    assert "is it running" in said
    deadline = Deadline.after(TOLD_SECONDS)
    with pytest.raises(TransportError, match="is it running"):
        await sink.create_topic("late", 1, {})
    assert not deadline.is_over()

    broker.start(port=broker.port)
    await sink.create_topic("late", 1, {"retention.ms": "-1"})
    assert await sink.send("late", 0, values("first")) == 0


async def test_sink_outlives_a_broker_that_restarts_and_one_that_hangs(broker: Kafka, sink: KafkaSink, tmp_path: Path) -> None:
    """What was written stays where it was; a question is never kept for long; a write that waited arrives once."""
    broker.start(port=broker.port)
    await sink.create_topic("kept", 1, {"retention.ms": "-1"})
    assert await sink.send("kept", 0, values("a")) == 0

    broker.stop()
    assert "is it running" in await is_told(sink)
    waiting = asyncio.create_task(sink.send("kept", 0, values("b")))
    await asyncio.sleep(1)
    assert not waiting.done()
    broker.start(port=broker.port)
    assert await waiting == 1

    os.kill(broker.pid, signal.SIGSTOP)
    assert "does not answer" in await is_told(sink)
    os.kill(broker.pid, signal.SIGCONT)
    assert await sink.send("kept", 0, values("c")) == 2

    settings = Settings(home=tmp_path, broker=f"k2kafka://{broker.address}")
    assert [r.value for r in await asyncio.to_thread(lambda: list(read_topics(settings, ["kept"])))] == [b"a", b"b", b"c"]
    broker.stop()
    with pytest.raises(TransportError, match="is it running"):
        await asyncio.to_thread(lambda: list(read_topics(settings, ["kept"])))


async def test_worker_reads_on_after_an_outage_and_a_freeze(broker: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Consumer and producer of Faust come back by themselves at the vector, and do not fill the log while they wait."""
    broker.start(port=broker.port)
    site = KafkaSite(broker.address)
    tp = TopicPartition(await site.topic(), 0)
    worker = Worker(site, tmp_path, [tp.topic], session_timeout_ms=3_000)
    async with running(worker):
        await numbered(site, tp, [3])
        await worker.until_read(tp, 3)
        worker.handler.positions_of[tp] = 3

        broker.stop()
        caplog.clear()
        await asyncio.sleep(10)
        lines = [r for r in caplog.records if r.levelno >= logging.WARNING and not r.name.startswith("aiokafka")]  # set_up_logs silences these
        assert len(lines) <= 12, [r.getMessage() for r in lines]
        broker.start(port=broker.port)
        await numbered(site, tp, [2])
        await worker.until_read(tp, 5)
        worker.handler.positions_of[tp] = 5

        os.kill(broker.pid, signal.SIGSTOP)
        await asyncio.sleep(6)
        os.kill(broker.pid, signal.SIGCONT)
        await numbered(site, tp, [2])
        await worker.until_read(tp, 7)
    await site.close()

    assert [int(v or b"") for v in worker.values(tp)] == list(range(7))
    assert worker.handler.lost == []
