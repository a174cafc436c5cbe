"""Where and in which order the publisher puts records; what stays whole when the log fails."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from aiokafka.partitioner import DefaultPartitioner

from k2stream.errors import TransportError
from k2stream.feed import recorded
from k2stream.feed.publisher import FeedMarker, Publisher, partition_of, publishing
from k2stream.feed.recording import MessageIds
from k2stream.records import TopicPartition
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import Outgoing

ASX = "market.equities.trades.asx"
BINANCE = "market.crypto.trades.binance"


class FullLog:
    """A log that takes `room` batches and then is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[tuple[int, list[Outgoing]]] = []

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        await asyncio.sleep(0)
        if len(self.taken) == self.room:
            raise TransportError("The log is full.")
        self.taken.append((partition, list(records)))
        return 0

    async def send_batch(self, topic: str, partition: int, raw: bytes) -> int:
        raise NotImplementedError

    async def partitions(self, topic: str) -> int:
        return 4

    async def create_topic(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        raise NotImplementedError

    async def topics(self) -> Mapping[str, int]:
        return {}

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return (0, 0)

    async def close(self) -> None:
        return None


@pytest.mark.parametrize("partitions", [1, 8, 30])
def test_keys_go_where_kafkas_partitioner_puts_them(partitions: int) -> None:
    """Equal to aiokafka's default partitioner for every symbol, so other producers agree."""
    for key in (b"BHP", b"RIO", b"BTCUSDT", b"", "ü".encode(), b"XBT/USD"):
        assert partition_of(key, partitions) == DefaultPartitioner()(key, list(range(partitions)), list(range(partitions)))


async def test_the_whole_recording_lies_in_the_log_in_order(tmp_path: Path) -> None:
    """Every row once, per symbol in order, markers alone in their batches before their session's first row."""
    recordings = recorded.trades(ids=MessageIds(UUID(int=9)), now_us=10**15, rows=6_000)
    sink = EmbeddedSink(tmp_path)
    for recording in recordings:
        await sink.create_topic(recording.topic, 3, {})
    told: list[int] = []
    published = await recorded.play(
        sink, [recorded.script(r) for r in recordings], schema_ids={ASX: 1, BINANCE: 2}, progress=told.append
    )
    await sink.close()
    assert [(p.topic, p.records, p.markers) for p in published] == [(ASX, 5_941, 3), (BINANCE, 59, 0)]
    assert sum(told) == 6_000
    log = EmbeddedLog(tmp_path)
    values: dict[bytes, list[bytes | None]] = {}
    for partition in range(3):
        for batch in log.read(TopicPartition(ASX, partition), 0, 1 << 30):
            records = list(batch.records())
            assert len(records) == 1 or all(r.value is not None for r in records)
            for r in records:
                assert r.key is not None
                assert partition_of(r.key, 3) == partition
                values.setdefault(r.key, []).append(r.value)
    log.close()
    expected: dict[bytes, list[bytes | None]] = {}
    encoder = Publisher(FullLog(0), ASX, schema="trade_v2", schema_id=1, partitions=3)
    for r in encoder.encode(recordings[0].rows):
        assert r.key is not None
        expected.setdefault(r.key, [None]).append(r.value)
    assert values == expected


async def test_a_full_log_lets_no_later_batch_pass_an_earlier_one() -> None:
    """The error reaches the caller, and of the failed partition nothing later was written."""
    log = FullLog(room=2)
    with pytest.raises(TransportError, match="full"):
        async with publishing(log, "t", schema="trade_v2", schema_id=1) as publisher:
            await publisher.records(Outgoing(b"BHP", b"%d" % n, 0) for n in range(5_500))
    assert [int(r.value or b"") for _, batch in log.taken for r in batch] == list(range(2_000))


async def test_a_batch_is_no_larger_than_a_topic_takes() -> None:
    """Kafka refuses more than 1 MiB at once, again and again, and nothing behind it would ever be written."""
    log = FullLog(room=99)
    async with publishing(log, "t", schema="trade_v2", schema_id=1) as publisher:
        await publisher.records(Outgoing(b"BHP", b"%4d" % n + b"x" * 50_000, 0) for n in range(100))
    assert max(sum(len(r.value or b"") for r in batch) for _, batch in log.taken) <= 512 << 10
    assert [int((r.value or b"")[:4]) for _, batch in log.taken for r in batch] == list(range(100))
    assert len(log.taken) <= 11, "and not each alone"


async def test_a_marker_comes_after_all_that_was_published_before_it() -> None:
    """Rows that wait for a full batch go out first; the marker is alone; then the rest."""
    log = FullLog(room=9)
    async with publishing(log, "t", schema="trade_v2", schema_id=1) as publisher:
        await publisher.records([Outgoing(b"BHP", b"1", 0)])
        await publisher.marker(FeedMarker("BHP", "session_start", "2014-03-11", 5))
        await publisher.records([Outgoing(b"BHP", b"2", 0)])
    assert [[r.value for r in batch] for _, batch in log.taken] == [[b"1"], [None], [b"2"]]
    assert log.taken[1][1][0].headers == (("k2-marker", b"session_start"), ("k2-session", b"2014-03-11"), ("k2-time-us", b"5"))
    assert log.taken[1][1][0].key == b"BHP"
