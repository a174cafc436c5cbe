"""The checks of a start on a real broker: `latest` for two workers, topics made anew, tables rolled back."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from k2stream.dev.kafka import Kafka
from k2stream.lake.reader import TableReader
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.transport.sink import Outgoing
from k2stream.worker_group import WorkerGroup
from k2stream.worker_process import WorkerProcess
from tests.services.start_site import QUICK, ROOT, ROWS, WAIT_SECONDS, assert_audited, k2, publish, rows, until, worker

TOPICS = ["market.equities.trades.asx", "market.crypto.trades.binance"]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Kafka]:
    """One of this test's own: it has the recorded trades' topics made anew."""
    with Kafka(tmp_path / "kafka", Settings()) as service:
        yield service


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "k2"


def delete_topics(broker: Kafka) -> None:
    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        try:
            await admin.delete_topics(TOPICS)
        finally:
            await admin.close()

    asyncio.run(delete())


def run_until(home: Path, environment: dict[str, str], count: int) -> None:
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == count, f"at {count} rows")
        assert w.stop() == 0


def committed(home: Path) -> int:
    """Rows by the ledger of the table itself."""
    with closing(TableReader.open_reader(Settings(home=home), "trades")) as reader:
        return sum(entry.counts.rows for entry in reader.head().vector.values())


def owned(w: WorkerProcess) -> set[tuple[str, int]]:
    return {(p["topic"], p["partition"]) for p in ((w.state() or {}).get("trades") or {}).get("partitions", [])}


def send_bad(broker: Kafka, count: int) -> None:
    """So many records that become letters into each of two partitions of each topic."""

    async def send() -> None:
        sink = KafkaSink(broker.address)
        try:
            for topic in TOPICS:
                await sink.create_topic(topic, 2, {})
                for partition in range(2):
                    await sink.send(topic, partition, [Outgoing(b"BHP", b"bad", 1_700_000_000_000)] * count)
        finally:
            await sink.close()

    asyncio.run(send())


def test_a_second_worker_that_starts_at_latest_reads_no_history_and_misses_nothing(tmp_path: Path, broker: Kafka) -> None:
    """Its partitions' start is the moment of the first worker's: what came before is read by nobody, what came since is lost by nobody."""
    environment = {**QUICK, **broker.exports(), "K2_START": "latest", "K2_STATE": "memory"}
    send_bad(broker, 5)
    with WorkerGroup(tmp_path / "group", environment, root=ROOT) as group:
        first = group.worker(group.start(K2_TOPICS=TOPICS[0]))  # one of the topics, and in a group of one all its partitions
        until(first, lambda: len(owned(first)) == 2, "with all partitions")
        send_bad(broker, 3)
        second = group.worker(group.start(K2_TOPICS=TOPICS[0]))
        until(second, lambda: len(owned(second)) == 1 == len(owned(first)), "sharing")
        with closing(TableReader.open_reader(group.settings(), "trades")) as reader:
            until(second, lambda: all(entry.next == 8 for entry in reader.head().vector.values()), "at the end")
            assert [(entry.start, entry.counts.dead_letters) for entry in reader.head().vector.values()] == [(5, 3), (5, 3)]
        assert (first.stop(), second.stop()) == (0, 0)


def test_one_log_batch_is_read_at_any_of_its_offsets(broker: Kafka) -> None:
    """By its base and its checksum a log is known again; beyond the ends there is none."""

    async def read() -> None:
        sink = KafkaSink(broker.address)
        try:
            await sink.create_topic("tried", 1, {})
            for text in (b"one", b"two"):
                await sink.send("tried", 0, [Outgoing(None, text, 1_700_000_000_000)] * 5)
            tp = TopicPartition("tried", 0)
            found = [await sink.log_batch_at(tp, offset) for offset in (0, 4, 5, 9)]
            assert [b and (b.base_offset, b.count) for b in found] == [(0, 5), (0, 5), (5, 5), (5, 5)]
            assert len({b.crc for b in found if b}) == 2
            assert [await sink.log_batch_at(tp, offset) for offset in (10, 11)] == [None, None]
        finally:
            await sink.close()

    asyncio.run(read())


def test_a_topic_that_was_deleted_and_made_anew_is_refused(home: Path, broker: Kafka) -> None:
    """As many offsets again, other records: one sentence, exit code 1, and the table as it was. A restart on the old topic is not refused."""
    environment = dict(broker.exports())
    publish(home, environment)
    run_until(home, environment, ROWS)
    with closing(TableReader.open_reader(Settings(home=home), "trades")) as reader:
        assert [tp for tp, e in reader.head().vector.items() if e.next > e.start and e.mark is None] == []
    run_until(home, environment, ROWS)

    delete_topics(broker)
    publish(home, environment, rows=2 * ROWS)
    with worker(home, environment) as w:
        assert w.wait(WAIT_SECONDS) == 1, w.last_lines(30)
        assert "re-created" in w.last_lines(1), w.last_lines(30)
        assert "K2_NAMESPACE" in w.last_lines(1)


def test_a_vector_beyond_the_log_is_refused(home: Path, broker: Kafka) -> None:
    """The topic was made anew and is shorter: nobody waits for offsets to come that mean other records."""
    environment = dict(broker.exports())
    publish(home, environment)
    run_until(home, environment, ROWS)
    delete_topics(broker)
    publish(home, environment, rows=ROWS // 10)
    with worker(home, environment) as w:
        assert w.wait(WAIT_SECONDS) == 1, w.last_lines(30)
        assert "the log ends at" in w.last_lines(1), w.last_lines(30)


def test_a_second_group_reads_the_topic_and_is_kept_from_the_table(home: Path, broker: Kafka) -> None:
    """Kafka shares partitions out inside a group only: the second would be given all of them."""
    environment = dict(broker.exports())
    publish(home, environment)
    run_until(home, environment, ROWS)
    with worker(home, {**environment, "K2_APP_ID": "second"}) as w:
        assert w.wait(WAIT_SECONDS) == 1, w.last_lines(30)
        assert "K2_APP_ID=k2stream" in w.last_lines(1), w.last_lines(30)
    run_until(home, environment, ROWS)


def test_a_table_rolled_back_under_a_worker_is_filled_again(home: Path, broker: Kafka) -> None:
    """The group's offsets in Kafka stand beyond what the table holds now; the table decides."""
    environment = dict(broker.exports())
    publish(home, environment, rows=ROWS // 2)
    run_until(home, environment, ROWS // 2)
    with closing(TableReader.open_reader(Settings(home=home), "trades")) as reader:
        earlier = reader.head().snapshot_id
    publish(home, environment)
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS, "caught up")
        with closing(TableReader.open_reader(Settings(home=home), "trades")) as reader:
            reader.load().manage_snapshots().rollback_to_snapshot(earlier or 0).commit()
        assert committed(home) == ROWS // 2
        until(w, lambda: committed(home) == ROWS, "full again")
        assert w.stop() == 0
    assert_audited(home, environment)
    done = k2(home, "query", "trades", "--limit", str(10 * ROWS), "--format", "csv", environment=environment)
    assert len(done.stdout.strip().splitlines()) == ROWS + 1
