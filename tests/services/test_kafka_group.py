"""Workers of one consumer group on a real broker: who reads what after each comes and goes, and what becomes of their letters."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.checkout import find_root
from k2stream.deadletter.kept import origins_of_table
from k2stream.errors import K2Error
from k2stream.records import TopicPartition
from k2stream.topics import KEPT_7_DAYS
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.worker_group import WorkerGroup, partitions_of

PARTITIONS = 8
TOPICS = ("market.crypto.trades.group", "market.equities.trades.group")
WAIT_SECONDS = 180.0
KEPT_LONG = {**KEPT_7_DAYS, "retention.ms": "-1"}

Owners = dict[TopicPartition, int]


@pytest.fixture
def group(fresh_kafka: str, tmp_path: Path) -> Iterator[WorkerGroup]:
    """Workers to be started on two topics of eight empty partitions each."""
    environment = {
        "K2_BROKER": f"k2kafka://{fresh_kafka}",
        "K2_APP_ID": tmp_path.name,
        "K2_TOPICS": "market.*.trades.group",
        "K2_PARTITIONS": str(PARTITIONS),
        "K2_STATE": "memory",
        "K2_SESSION_TIMEOUT_MS": "6000",
        "K2_WINDOW_MS": "500",
        "K2_FSYNC": "false",
    }
    with WorkerGroup(tmp_path, environment, root=find_root()) as made:
        asyncio.run(make_topics(made))
        yield made


async def make_topics(group: WorkerGroup) -> None:
    sink = open_sink(group.settings())
    try:
        for topic in TOPICS:
            await sink.create_topic(topic, PARTITIONS, KEPT_LONG)
    finally:
        await sink.close()


def spoil(group: WorkerGroup) -> None:
    """Append one record to each partition that becomes a dead letter."""

    async def append() -> None:
        sink = open_sink(group.settings())
        try:
            for topic in TOPICS:
                for partition in range(PARTITIONS):
                    await sink.send(topic, partition, [Outgoing(b"KEY", b"no frame", int(time.time() * 1000))])
        finally:
            await sink.close()

    asyncio.run(append())


def owners(group: WorkerGroup) -> Owners:
    """Who says that it reads which partition; AssertionError if two do."""
    found: Owners = {}
    for number in group.running():
        for p in partitions_of(group.state(number)):
            tp = TopicPartition(p["topic"], p["partition"])
            assert tp not in found, f"{tp} is read by workers {found[tp]} and {number}"
            found[tp] = number
    return found


def settled(group: WorkerGroup, workers: int) -> Owners:
    """Who reads what once all partitions are spread evenly over so many workers."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            found = owners(group)
        except AssertionError:  # seen between two workers' pages
            found = {}
        counts = [list(found.values()).count(n) for n in set(found.values())]
        if len(found) == len(TOPICS) * PARTITIONS and len(counts) == workers and max(counts) - min(counts) <= len(TOPICS):
            return found
        if time.monotonic() > until:
            raise K2Error(f"not spread over {workers} workers: {found}\n{group.last_lines()}")
        time.sleep(0.1)


def until_letters(group: WorkerGroup, count: int) -> None:
    """Wait until the table of letters holds so many, each once."""
    until = time.monotonic() + WAIT_SECONDS
    while (found := len(origins_of_table(group.settings()))) != count:
        if time.monotonic() > until:
            raise K2Error(f"{count} letters expected, the table holds {found}\n{group.last_lines()}")
        time.sleep(0.1)


def moved(before: Owners, after: Owners) -> list[TopicPartition]:
    """Partitions that went from one worker to another though their old one is still there."""
    return [tp for tp, number in before.items() if number in set(after.values()) and after[tp] != number]


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_workers_come_and_go_and_only_what_must_moves(group: WorkerGroup) -> None:
    """Eight partitions over one, two and four workers, one killed: equal numbers together, minimal moves, the table of letters whole each time."""
    group.start()
    spoil(group)
    one = settled(group, 1)
    until_letters(group, 16)

    group.start()
    two = settled(group, 2)
    assert len(moved(one, two)) == 8
    until_letters(group, 16)

    group.start(), group.start()
    four = settled(group, 4)
    assert len(moved(two, four)) == 8
    spoil(group)
    until_letters(group, 32)

    group.kill(1)
    three = settled(group, 3)
    assert moved(four, three) == []
    until_letters(group, 32)
    for found in (two, four, three):
        assert all(found[TopicPartition(TOPICS[0], n)] == found[TopicPartition(TOPICS[1], n)] for n in range(PARTITIONS))
