"""A topic copied into another: each record once, in the order of its key, wherever the copying was killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import methodcaller
from pathlib import Path

import pytest

from k2stream.errors import MigrationError, TransportError
from k2stream.feed.publisher import partition_of
from k2stream.records import Record
from k2stream.settings import Settings
from k2stream.testing import SinkThatDeliversLate
from k2stream.topics.checksum import Checksum
from k2stream.topics.course import Course
from k2stream.topics.migration import Migration, Outcome
from k2stream.topics.plan import Declared
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_topics
from k2stream.transport.sink import LogSink, Outgoing
from tests.integration.test_topics import Log

ROOT = Path(__file__).parents[2]
SOURCE_PARTITIONS, TARGET_PARTITIONS = 3, 5
NOW_MS = time.time_ns() // 1_000_000
CONFIG = {"cleanup.policy": "delete", "retention.ms": "-1"}
FILE = """\
data_types:
  trades:
    key: symbol
    config:
      retention.ms: -1
topics:
  {target}:
    partitions: 5
"""
KILLED = -signal.SIGKILL


class Site(Log):
    """A log with a source full of records of every kind, and the migration of it."""

    def __init__(self, folder: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, broker, monkeypatch)
        self.source, self.target = self.topic("source"), self.topic("target")
        self.file.write_text(FILE.format(target=self.target))
        self.random = random.Random(7)
        self.number = 0
        self.ask(lambda sink: sink.create_topic(self.source, SOURCE_PARTITIONS, CONFIG))

    def publish(self, count: int) -> None:
        """Records with and without key, value and headers, large and small."""

        async def publish(sink: LogSink) -> None:
            for _ in range(0, count, 100):
                by_partition: dict[int, list[Outgoing]] = defaultdict(list)
                for record in [self._record() for _ in range(100)]:
                    by_partition[0 if record.key is None else partition_of(record.key, SOURCE_PARTITIONS)].append(record)
                for partition, records in by_partition.items():
                    await sink.send_batch(self.source, partition, build_log_batch(records))

        self.ask(publish)

    def _record(self) -> Outgoing:
        self.number += 1
        kind = self.random.random()
        key = None if kind < 0.05 else b"S%d" % self.random.randrange(40)
        value = None if kind > 0.97 else b"%d " % self.number + b"x" * self.random.choice([0, 10, 300])
        headers = (("kind", b"%d" % self.number), ("empty", b"")) if kind > 0.9 else ()
        return Outgoing(key, value, NOW_MS + self.number, headers)

    def migration(self, on_step: Callable[[str], None] = lambda step: None) -> Migration:
        return Migration(self.settings, self.source, Declared(self.target, TARGET_PARTITIONS, CONFIG), on_step=on_step)

    def migrate(self) -> int:
        with self.migration() as migration:
            return migration.run().records

    def migrate_until_killed(self, crash_at: str) -> None:
        with self.start(K2_CRASH_AT=crash_at) as process:
            assert process.wait(60) == KILLED, process.stdout and process.stdout.read()

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "k2stream.cli", "topics", "migrate", self.source, self.target, "--file", str(self.file)]
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def records(self, topic: str) -> list[Record]:
        return list(read_topics(self.settings, [topic]))

    def require_equal(self) -> None:
        """Every record once, in the order of its key, in the partition where feeds would put it."""
        source, target = self.records(self.source), self.records(self.target)
        assert sorted(map(content, source)) == sorted(map(content, target))
        assert by_key(source) == by_key(target)
        assert all(r.partition == partition_of(r.key, TARGET_PARTITIONS) for r in target if r.key is not None)


def content(record: Record) -> tuple[object, ...]:
    return (record.timestamp_ms, record.key or b"", record.key is None, record.value or b"", record.value is None, record.headers)


def by_key(records: Sequence[Record]) -> dict[bytes, list[tuple[object, ...]]]:
    found: dict[bytes, list[tuple[object, ...]]] = defaultdict(list)
    for record in records:
        if record.key is not None:
            found[record.key].append(content(record))
    return found


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("k2stream.topics.migration.CHUNK_RECORDS", 500)
    broker = f"k2kafka://{request.getfixturevalue('kafka')}" if request.param == "kafka" else ""
    return Site(tmp_path, broker, monkeypatch)


def test_every_record_is_copied_once_and_later_ones_by_the_next_run(site: Site) -> None:
    """Keys, nulls, headers and times as they were; a second run takes what came since, a third nothing."""
    site.publish(2_000)
    with site.migration() as migration:
        assert migration.planned().records_at_most == 2_000
    assert site.target not in site.found()
    assert site.migrate() == 2_000
    site.require_equal()
    site.publish(500)
    assert site.migrate() == 500
    assert site.migrate() == 0
    site.require_equal()


def test_both_topics_hold_the_same_in_another_order_is_not_equal() -> None:
    """The checksum holds the order of each key, and of nothing else."""
    first, second, other = (Record("t", 0, n, n, key, b"v") for n, key in enumerate((b"A", b"A", b"B")))
    sums = []
    for order in ((first, second, other), (other, first, second), (second, first, other)):
        checksum = Checksum()
        for record in order:
            checksum.add(record)
        sums.append(checksum.hexdigest())
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("step", ["migrate.send.before:1", "migrate.sent:1", "migrate.sent:3", "migrate.sent:7", "migrate.send.after:2", "migrate.saved:1"])
def test_a_migration_that_is_killed_goes_on_exactly(site: Site, step: str) -> None:
    """kill -9 before sending, with some partitions sent and others not, before and after it is written down; twice, then to the end."""
    site.publish(12_000)
    for _ in range(2):
        site.migrate_until_killed(step)
    assert site.migrate() == 12_000
    site.require_equal()


def test_a_migration_killed_at_any_moment_goes_on_exactly(site: Site) -> None:
    """kill -9 from outside, at random moments, until one run gets through."""
    site.publish(12_000)
    for _ in range(6):
        with site.start() as process:
            try:
                process.wait(site.random.uniform(0.8, 2.5))
            except subprocess.TimeoutExpired:
                process.kill()
    site.migrate()
    site.require_equal()


@pytest.mark.kafka
@pytest.mark.parametrize("arrival", ["migrate.send.before", "migrate.send.after", "after"])
def test_what_a_killed_migration_had_sent_arrives_late_and_is_there_once(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrival: str) -> None:
    """Its requests lie in the broker's socket while the next run looks where the target ends: before, after, or long after that run sends them again."""
    site = Site(tmp_path, f"k2kafka://{kafka}", monkeypatch)
    site.publish(12_000)
    held: list[SinkThatDeliversLate] = []

    def late_sink(settings: Settings) -> SinkThatDeliversLate:
        held.append(SinkThatDeliversLate(open_sink(settings)))
        return held[0]

    with monkeypatch.context() as patched:
        patched.setattr("k2stream.topics.migration.open_sink", late_sink)
        with pytest.raises(TransportError, match="died"):
            site.migrate()
    assert held[0].under_way

    def arrive(step: str) -> None:
        while step == arrival and held[0].under_way:
            topic, partition, raw = held[0].under_way.pop()
            with suppress(TransportError):  # nobody waits for what the broker answers
                site.ask(methodcaller("send_batch", topic, partition, raw))

    with site.migration(on_step=arrive) as migration:
        assert migration.run().records == 12_000
    arrive("after")
    assert not held[0].under_way
    assert site.migrate() == 0
    site.require_equal()


def test_a_target_that_somebody_else_writes_to_is_refused(site: Site) -> None:
    """Before the first run, between a kill and the next run, and after the copying: never taken for our own records."""
    foreign = Outgoing(b"S1", b"somebody else's", NOW_MS)
    site.publish(12_000)
    site.migrate_until_killed("migrate.sent:2")
    for partition in range(TARGET_PARTITIONS):
        site.ask(lambda sink, p=partition: sink.send(site.target, p, [foreign]))
    with pytest.raises(MigrationError, match=r"did not bring"):
        site.migrate()

    site.source, taken = site.topic("other"), site.target
    site.ask(lambda sink: sink.create_topic(site.source, 1, CONFIG))
    with pytest.raises(MigrationError, match=rf"{taken} holds records, and no migration into it was begun here"):
        site.migrate()


def test_a_target_that_was_made_anew_is_noticed(site: Site) -> None:
    """Its offsets say that what was copied is gone."""
    site.publish(200)
    site.migrate()
    site.ask(lambda sink: sink.delete_topic(site.target))
    site.publish(200)
    with pytest.raises(MigrationError, match="made anew"):
        site.migrate()


def test_two_at_once_are_refused(site: Site) -> None:
    """Both would copy the same."""
    site.publish(200)
    with site.migration() as first, site.migration() as second, first._file.held(), pytest.raises(MigrationError, match="Another process migrates"):
        second.run()


def test_a_record_too_many_fails_the_comparison(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent by somebody else, as a copy of ours, behind everything that was looked at: said, with what to do."""
    site.publish(400)
    with site.migration() as migration:
        verify = migration._verify

        def late(course: Course) -> Outcome:
            doubled = site.records(site.target)[0]
            record = Outgoing(doubled.key, doubled.value, doubled.timestamp_ms, doubled.headers)
            site.ask(lambda sink: sink.send(site.target, doubled.partition, [record]))
            return verify(course)

        monkeypatch.setattr(migration, "_verify", late)
        with pytest.raises(MigrationError, match=r"holds 401 records.*holds 400.*begin anew"):
            migration.run()
