"""What a real broker makes of a log: batches that it compresses itself, transactions in every order, offsets that compaction took."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from k2stream.decode.block import open_block
from k2stream.decode.decoder import Decoder
from k2stream.errors import TransportError
from k2stream.records import Kind, TopicPartition
from k2stream.settings import Settings
from k2stream.transport.batch_builder import CODECS, build_log_batch
from k2stream.transport.reader import read_on, read_topics
from k2stream.transport.sink import Outgoing
from tests.integration.transport_site import CLEANED, KafkaSite, Worker, heavy, names, running, values
from tests.properties.test_decode import Schemas, value_of
from tests.properties.trade_records import a_trade

pytestmark = pytest.mark.kafka
ROWS = 3_000
"""Bytes enough for several blocks of any codec."""


@pytest.fixture
async def site(kafka: str) -> AsyncIterator[KafkaSite]:
    """The broker that tests may write to."""
    made = KafkaSite(kafka)
    yield made
    await made.close()


@pytest.mark.parametrize("codec", CODECS)
async def test_codec_is_read_whoever_compressed(site: KafkaSite, tmp_path: Path, codec: str) -> None:
    """Our own batches, an ordinary producer's, and what the broker compresses anew with libraries of its own: same rows, by the fast path."""
    trades = [Outgoing(b"key", value_of(a_trade(n)), 1_700_000_000_000 + n) for n in range(ROWS)]
    as_sent = await site.topic(config={"max.message.bytes": "10000000"})
    anew = await site.topic(config={"max.message.bytes": "10000000", "compression.type": "uncompressed" if codec == "none" else codec})
    await site.sink.send_batch(as_sent, 0, build_log_batch(trades, codec))
    await site.sink.send_batch(anew, 0, build_log_batch(trades, "lz4" if codec != "lz4" else "zstd"))
    compression = None if codec == "none" else codec
    async with AIOKafkaProducer(bootstrap_servers=site.bootstrap, compression_type=compression, linger_ms=50, max_batch_size=500_000) as producer:
        sent = [await producer.send(as_sent, trade.value, key=trade.key, partition=0) for trade in trades]
        for place in sent:
            await place
    async with running(Worker(site, tmp_path, [as_sent, anew])) as worker:
        await worker.until_read(TopicPartition(as_sent, 0), 2 * ROWS)
        await worker.until_read(TopicPartition(anew, 0), ROWS)

    decoder = Decoder("trade_v2", Schemas())
    decoded = decoder.decode_many(worker.batches)
    assert {b.codec for batch in worker.batches for b in batch.log_batches} == {CODECS[codec]}
    assert None not in {open_block(b) for batch in worker.batches for b in batch.log_batches}
    assert sum(d.rows.num_rows for d in decoded) == 3 * ROWS
    assert not [d.rejects for d in decoded if d.rejects]
    assert {r for d in decoded for r in d.rows["source_sequence"].to_pylist()} == set(range(ROWS))


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_transactions_in_any_order_add_up(site: KafkaSite, tmp_path: Path, isolation: str) -> None:
    """Producers whose transactions overlap, some aborted: committed rows come once, and every other offset is a hole that says why."""
    tp, draw = TopicPartition(await site.topic(), 0), random.Random(4)
    committed: list[bytes] = []
    aborted: list[bytes] = []
    async with AsyncExitStack() as stack:
        made = [AIOKafkaProducer(bootstrap_servers=site.bootstrap, transactional_id=next(names)) for _ in range(4)]
        producers = [await stack.enter_async_context(producer) for producer in made]
        for round_ in range(6):
            for producer in producers:
                await producer.begin_transaction()
            fates = {n: draw.random() < 0.5 for n in range(len(producers))}
            for row in range(12):
                n = draw.randrange(len(producers))
                value = f"{round_}-{row}".encode()
                await producers[n].send_and_wait(tp.topic, value, partition=0)
                (committed if fates[n] else aborted).append(value)
            await site.sink.send(tp.topic, 0, values(f"{round_}-plain"))
            committed.append(f"{round_}-plain".encode())
            for n, producer in enumerate(producers):
                await (producer.commit_transaction() if fates[n] else producer.abort_transaction())
    last = await site.sink.send(tp.topic, 0, values("last"))
    worker = Worker(site, tmp_path, [tp.topic], isolation_level=isolation)
    async with running(worker):
        await worker.until_read(tp, last + 1)

    log_batches = [b for batch in worker.batches for b in batch.log_batches]
    counts = {kind: sum(b.last_offset - b.from_offset + 1 for b in log_batches if b.kind is kind) for kind in Kind}
    wanted = [*committed, b"last"] + (aborted if isolation == "read_uncommitted" else [])
    assert sorted(filter(None, worker.values(tp))) == sorted(wanted)
    end = max(b.last_offset for b in log_batches) + 1
    assert end > last  # a marker of the last transactions may be written behind it
    assert counts[Kind.DATA] + counts[Kind.ABORTED] + counts[Kind.CONTROL] == end
    assert counts[Kind.ABORTED] == (0 if isolation == "read_uncommitted" else len(aborted))
    assert counts[Kind.COMPACTED] == 0


async def test_compacted_topic_adds_up_in_the_middle_of_batches(site: KafkaSite, tmp_path: Path) -> None:
    """The cleaner takes single records out of a log batch: what is left comes once, what is gone is counted as such by whoever reads record by record."""
    tp = TopicPartition(await site.topic(config=CLEANED), 0)
    await site.sink.send(tp.topic, 0, values("a", "b", "c", "after", "d"))
    after = await site.hole(tp, 3, Kind.COMPACTED)
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until_read(tp, after + 1)

    log_batches = [b for batch in worker.batches for b in batch.log_batches if b.from_offset <= after]
    assert worker.values(tp) == [b"a", b"b", b"c", b"d", b"after"]
    assert [b.from_offset for b in log_batches[1:]] == [b.last_offset + 1 for b in log_batches[:-1]]
    assert log_batches[0].count == 4
    assert worker.handler.lost == []


async def test_audit_of_a_long_topic_holds_one_fetch_at_a_time(site: KafkaSite, tmp_path: Path) -> None:
    """Letters of months must not be drawn into memory at once: 40 MB are read in a fraction of that, in order, and all of them."""
    topic = await site.topic(partitions=2)
    for partition in range(2):
        await heavy(site, TopicPartition(topic, partition), log_batches=25, records=20, value_bytes=40_000)
    settings = Settings(home=tmp_path, broker=site.url)

    def read() -> tuple[dict[int, list[int]], int]:
        offsets: dict[int, list[int]] = {0: [], 1: []}
        tracemalloc.start()
        try:
            for record in read_topics(settings, [topic]):
                offsets[record.partition].append(record.offset)
            return offsets, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    offsets, peak_bytes = await asyncio.to_thread(read)

    assert offsets == {0: list(range(500)), 1: list(range(500))}
    assert peak_bytes < 30 << 20


async def test_reader_that_stops_early_or_comes_too_late_leaves_nothing_open(site: KafkaSite, tmp_path: Path) -> None:
    """Whoever takes one record lets go of the broker; offsets that retention took are said, not skipped."""
    tp = TopicPartition(await site.topic(), 0)
    await site.sink.send(tp.topic, 0, values("a", "b"))
    await site.sink.send(tp.topic, 0, values("c"))
    await site.lose_below(tp, 2)
    settings = Settings(home=tmp_path, broker=site.url)

    def first() -> bytes | None:
        with closing(read_topics(settings, [tp.topic, "not.there"])) as records:
            return next(records).value

    assert await asyncio.to_thread(first) == b"c"
    with pytest.raises(TransportError, match=f"{tp.topic}/0/0 are not in the log any more"):
        await asyncio.to_thread(lambda: list(read_on(settings, {tp: 0})))
    gc.collect()  # what was left open would warn here, and warnings are errors
