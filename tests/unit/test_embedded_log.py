"""The embedded log: what it returned offsets for is there, whole, whatever happened since."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from k2stream.errors import HomeError, LogCorruptError, TransportError
from k2stream.records import Kind, TopicPartition
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.sink import Outgoing

TP = TopicPartition("trades", 0)
DAY_MS = 86_400_000
ALL_BYTES = 1 << 30


def raw(*texts: str) -> bytes:
    """A log batch of one record a text."""
    return build_log_batch([Outgoing(b"k", text.encode(), 1_700_000_000_000) for text in texts])


class Hands:
    """A clock that stands where it was put."""

    def __init__(self) -> None:
        self.now_ms = 100 * DAY_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def hands() -> Hands:
    """Time, moved by the test."""
    return Hands()


@pytest.fixture
def log(tmp_path: Path, hands: Hands) -> Iterator[EmbeddedLog]:
    """A log with one topic of two partitions."""
    with closing(EmbeddedLog(tmp_path / "log", now_ms=hands)) as made:
        made.create_topic("trades", 2)
        yield made


def offsets(log: EmbeddedLog, position: int = 0, tp: TopicPartition = TP) -> list[int]:
    """Offsets of all records from `position` on."""
    return [r.offset for b in log.read(tp, position, ALL_BYTES) for r in b.records()]


def test_partitions_count_for_themselves(log: EmbeddedLog) -> None:
    """Offsets of a partition are dense from 0 on, whatever is appended to the other one."""
    placed = log.append_many([("trades", 0, raw("a", "b")), ("trades", 1, raw("c")), ("trades", 0, raw("d"))])

    assert placed == [0, 0, 2]
    assert offsets(log) == [0, 1, 2]
    assert log.all_bounds() == {TP: (0, 3), TopicPartition("trades", 1): (0, 1)}


def test_read_begins_with_the_batch_that_holds_the_position(log: EmbeddedLog) -> None:
    """A position inside a batch is answered with that batch, cut; one at the end with nothing."""
    log.append("trades", 0, raw("a", "b", "c"))
    log.append("trades", 0, raw("d"))

    assert offsets(log, 1) == [1, 2, 3]
    assert log.read(TP, 1, ALL_BYTES)[0].base_offset == 0
    assert log.read(TP, 4, ALL_BYTES) == []


def test_read_stops_at_its_size_but_always_gets_on(log: EmbeddedLog) -> None:
    """At least one batch comes however small the budget, or a large batch would stop a reader for ever."""
    for text in "abc":
        log.append("trades", 0, raw(text * 100))
    size_bytes = len(log.read(TP, 0, ALL_BYTES)[0].raw)

    assert [len(log.read(TP, 0, limit)) for limit in (1, size_bytes, size_bytes + 1)] == [1, 1, 2]


def test_one_bad_batch_takes_nothing_of_its_transaction(log: EmbeddedLog) -> None:
    """All appends of one call are there, or none."""
    with pytest.raises(TransportError, match="Refused to append to 'trades'"):
        log.append_many([("trades", 0, raw("a")), ("trades", 0, b"not a log batch")])
    with pytest.raises(TransportError, match="partitions 0 to 1"):
        log.append_many([("trades", 0, raw("a")), ("trades", 7, raw("b"))])
    with pytest.raises(TransportError, match="does not exist"):
        log.append("unheard-of", 0, raw("a"))

    assert log.bounds(TP) == (0, 0)


def test_hole_is_read_with_its_kind(log: EmbeddedLog) -> None:
    """Offsets without records keep their place, cut at the position too."""
    log.append("trades", 0, raw("a"))
    log.append_hole("trades", 0, 4, Kind.ABORTED)
    log.append("trades", 0, raw("b"))
    hole, data = log.read(TP, 3, ALL_BYTES)

    assert (hole.kind, hole.from_offset, hole.last_offset, data.base_offset) == (Kind.ABORTED, 3, 4, 5)


def test_flipped_bit_is_refused_with_its_place(log: EmbeddedLog) -> None:
    """Bytes that rotted on the disk are never delivered."""
    log.append("trades", 0, raw("a"))
    log.append("trades", 0, raw("b"))
    with closing(sqlite3.connect(log.path)) as db, db:
        (id_, stored) = db.execute("SELECT id, raw FROM log_batches ORDER BY id LIMIT 1 OFFSET 1").fetchone()
        db.execute("UPDATE log_batches SET raw = ? WHERE id = ?", (stored[:-1] + bytes([stored[-1] ^ 1]), id_))

    assert log.read(TP, 0, 1)[0].last_offset == 0
    with pytest.raises(LogCorruptError, match="offset 1 of trades/0"):
        log.read(TP, 1, ALL_BYTES)


def test_damaged_file_is_named(log: EmbeddedLog, tmp_path: Path) -> None:
    """A file that is no database any more says which file, and what to do."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(LogCorruptError, match=r"other/log\.db is damaged"):
        EmbeddedLog(tmp_path / "other")


def test_other_peoples_database_is_left_alone(tmp_path: Path) -> None:
    """A database of somebody else in our place is refused, not written to."""
    with closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / "log.db").read_bytes()
    with pytest.raises(HomeError, match="not a k2stream log"):
        EmbeddedLog(tmp_path)

    assert (tmp_path / "log.db").read_bytes() == before


def test_log_is_its_owners_alone(log: EmbeddedLog) -> None:
    """Nobody else on the machine can read trades from the folder or the file."""
    assert log.folder.stat().st_mode & 0o077 == 0
    assert log.path.stat().st_mode & 0o077 == 0


APPEND_FOR_EVER = """
import sys
from pathlib import Path
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.sink import Outgoing
log = EmbeddedLog(Path(sys.argv[1]))
batch = build_log_batch([Outgoing(b"k", b"v" * 200, 1) for _ in range(50)], codec="none")
while True:
    print(log.append_many([("trades", 0, batch)] * 5)[-1] + 50, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_kill_leaves_what_was_acknowledged_and_only_whole_batches(log: EmbeddedLog, acknowledged: int) -> None:
    """SIGKILL in the middle of appending: nothing that was said to be stored is gone, and no transaction is half there."""
    with subprocess.Popen([sys.executable, "-c", APPEND_FOR_EVER, str(log.folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(acknowledged)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout if line.endswith("\n")]
    with closing(EmbeddedLog(log.folder)) as survivor:
        end = survivor.bounds(TP)[1]
        found = offsets(survivor)

    assert end >= said[-1]
    assert end % 250 == 0
    assert found == list(range(end))


def test_writers_at_the_same_time_lose_nothing(log: EmbeddedLog) -> None:
    """Two connections append while a third reads: every record has a place of its own."""

    def append(name: str) -> None:
        with closing(EmbeddedLog(log.folder)) as own:
            for number in range(20):
                own.append("trades", 0, raw(f"{name}{number}"))

    threads = [threading.Thread(target=append, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = [r.value for b in log.read(TP, 0, ALL_BYTES) for r in b.records()]

    assert sorted(v for v in read if v) == sorted(f"{name}{n}".encode() for name in "ab" for n in range(20))
    assert offsets(log) == list(range(40))


def test_others_writes_change_the_version_and_own_ones_do_not(log: EmbeddedLog) -> None:
    """What a waiting reader polls: it moves when, and only when, another connection wrote."""
    before = log.version()
    log.append("trades", 0, raw("own"))
    assert log.version() == before
    with closing(EmbeddedLog(log.folder)) as other:
        other.append("trades", 0, raw("theirs"))
    assert log.version() != before


def test_expiry_takes_old_batches_and_tells_where_the_log_begins(log: EmbeddedLog, hands: Hands) -> None:
    """Age decides, oldest first; the begin offset moves with what was deleted."""
    log.append("trades", 0, raw("a", "b"))
    hands.now_ms += 3 * DAY_MS
    log.append("trades", 0, raw("c"))
    hands.now_ms += 5 * DAY_MS

    assert log.expire(7 * DAY_MS) == 1
    assert log.bounds(TP) == (2, 3)
    assert offsets(log) == [2]
    assert log.expire(7 * DAY_MS) == 0


def test_expiry_never_passes_a_floor(log: EmbeddedLog, hands: Hands) -> None:
    """What some group's table does not hold yet stays, however old; the lowest of all floors counts."""
    for text in "abcd":
        log.append("trades", 0, raw(text, text))
    log.set_floors("quick", {TP: 8})
    log.set_floors("slow", {TP: 3})
    hands.now_ms += 90 * DAY_MS

    assert log.expire(7 * DAY_MS) == 1
    assert log.bounds(TP) == (2, 8)
    log.set_floors("slow", {TP: 8})
    assert log.expire(7 * DAY_MS) == 3
    assert log.bounds(TP) == (8, 8)


def test_topics_own_retention_comes_first(log: EmbeddedLog, hands: Hands) -> None:
    """`retention.ms` of a topic, -1 for ever, and compacted topics, which are never expired by age."""
    for name, config in {"short": {"retention.ms": "1000"}, "ever": {"retention.ms": "-1"}, "compact": {"cleanup.policy": "compact"}}.items():
        log.create_topic(name, 1, config)
        log.append(name, 0, raw("a"))
    hands.now_ms += 90 * DAY_MS
    log.expire(365 * DAY_MS)

    assert {name: log.bounds(TopicPartition(name, 0)) for name in ("short", "ever", "compact")} == {"short": (1, 1), "ever": (0, 1), "compact": (0, 1)}


def test_offsets_go_on_after_everything_expired(log: EmbeddedLog, hands: Hands) -> None:
    """An offset is never given twice, not even when the log is empty again."""
    log.append("trades", 0, raw("a", "b"))
    hands.now_ms += 90 * DAY_MS
    log.expire(DAY_MS)

    assert log.append("trades", 0, raw("c")) == 2


def test_groups_remember_where_they_stand(log: EmbeddedLog) -> None:
    """Each group has its own offsets; the last commit counts, after a restart too."""
    log.commit("one", {TP: 5})
    log.commit("one", {TP: 9})
    log.commit("two", {TP: 1})
    with closing(EmbeddedLog(log.folder)) as again:
        assert (again.committed("one"), again.committed("two"), again.committed("three")) == ({TP: 9}, {TP: 1}, {})


def test_topic_that_exists_is_left_as_it_is(log: EmbeddedLog) -> None:
    """Creating twice keeps the first one's partitions and settings."""
    assert log.create_topic("trades", 9, {"cleanup.policy": "compact"}) is False
    assert log.topic("trades").partitions == 2
    assert not log.topic("trades").is_compacted
