"""The embedded log: topics, partitions, log batches and group offsets in one SQLite file, for one machine.

Guarantee: what `append_many` returned offsets for is on disk (WAL, synchronous=FULL) and never changes; a crash in the
middle leaves all of it or nothing. Any number of processes append and read at the same time.
"""

import json
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k2stream.errors import LogCorruptError, TransportError
from k2stream.records import Kind, LogBatch, TopicPartition
from k2stream.transport.batch_builder import is_intact, offsets_of
from k2stream.transport.embedded_schema import PARTITION_SHIFT, open_database, plainly

Append = tuple[str, int, bytes]
"""Topic, partition, one log batch."""

EXPIRED_AT_ONCE = 200
"""Log batches that one transaction deletes: producers wait for no longer than that takes."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic as it was created."""

    name: str
    partitions: int
    config: Mapping[str, str]
    """Kafka's topic settings; `cleanup.policy` and `retention.ms` mean something here."""

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.config.get("cleanup.policy", "delete")


class EmbeddedLog:
    """One connection to the log in `folder`; thread-safe, calls wait for each other.

    Every method raises TransportError (HomeError, LogCorruptError) with a sentence that says what to do.
    """

    def __init__(self, folder: Path, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.folder = folder
        self.path = folder / "log.db"
        self._now_ms = now_ms
        self._lock = threading.RLock()
        self._db = open_database(folder)
        self._ids: dict[TopicPartition, int] = {}
        self._topics: dict[str, TopicInfo] = {}
        self._version_of_topics = -1

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # topics

    def create_topic(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> bool:
        """Create it unless it exists; True if it was created. An existing one is left as it is."""
        if partitions < 1 or not topic:
            raise TransportError(f"Topic {topic!r} cannot be created with {partitions} partitions: name it, and give it at least one.")
        with self._write() as db:
            made = db.execute(
                "INSERT INTO topics (name, partitions, config) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (topic, partitions, json.dumps({k: str(v) for k, v in (config or {}).items()})),
            )
            if not made.rowcount:
                return False
            db.executemany("INSERT INTO partitions (topic_id, partition) VALUES (?, ?)", ((made.lastrowid, p) for p in range(partitions)))
            self._version_of_topics = -1  # SQLite's own counter tells of other connections only
        return True

    def grow(self, topic: str, partitions: int) -> None:
        """Give it so many partitions; one that has as many or more is left as it is."""
        with self._write() as db:
            more = range(self._now(db, topic).partitions, partitions)
            db.executemany("INSERT INTO partitions (topic_id, partition) SELECT id, ? FROM topics WHERE name = ?", ((p, topic) for p in more))
            db.execute("UPDATE topics SET partitions = max(partitions, ?) WHERE name = ?", (partitions, topic))
            self._version_of_topics = -1

    def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set these of its settings; the others stay as they are."""
        with self._write() as db:
            whole = {**self._now(db, topic).config, **config}
            db.execute("UPDATE topics SET config = ? WHERE name = ?", (json.dumps(whole), topic))
            self._version_of_topics = -1

    def delete_topic(self, topic: str) -> None:
        """Its log batches, partitions, and what groups remember of it; one that does not exist is no error."""
        with self._write() as db:
            for (id_,) in db.execute("SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic_id WHERE t.name = ?", (topic,)).fetchall():
                db.execute("DELETE FROM log_batches WHERE id BETWEEN ? AND ?", (id_ << PARTITION_SHIFT, (id_ + 1 << PARTITION_SHIFT) - 1))
            db.execute("DELETE FROM partitions WHERE topic_id IN (SELECT id FROM topics WHERE name = ?)", (topic,))
            for table, column in (("topics", "name"), ("group_offsets", "topic"), ("floors", "topic")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (topic,))
            self._version_of_topics = -1

    def _now(self, db: sqlite3.Connection, topic: str) -> TopicInfo:
        """As another process may just have changed it."""
        self._load_topics(db)
        return self.topic(topic)

    def topics(self) -> Mapping[str, TopicInfo]:
        """Every topic, as of now."""
        with self._read() as db:
            if self.version() != self._version_of_topics:
                self._load_topics(db)
            return dict(self._topics)

    def topic(self, name: str) -> TopicInfo:
        """One topic; TransportError if it does not exist."""
        info = self._topics.get(name) or self.topics().get(name)
        if info is None:
            raise TransportError(f"Topic {name!r} does not exist in the log {self.path}. Create it first; `k2 doctor` lists those that exist.")
        return info

    def version(self) -> int:
        """Changes whenever another connection has written something; cheap enough to ask every few milliseconds."""
        with self._read() as db:
            return int(db.execute("PRAGMA data_version").fetchone()[0])

    def _load_topics(self, db: sqlite3.Connection) -> None:
        self._version_of_topics = self.version()
        rows = db.execute("SELECT name, partitions, config FROM topics").fetchall()
        self._topics = {name: TopicInfo(name, partitions, json.loads(config)) for name, partitions, config in rows}
        ids = db.execute("SELECT t.name, p.partition, p.id FROM partitions p JOIN topics t ON t.id = p.topic_id").fetchall()
        self._ids = {TopicPartition(topic, partition): id_ for topic, partition, id_ in ids}

    def _id(self, db: sqlite3.Connection, tp: TopicPartition) -> int:
        if tp not in self._ids:
            self._load_topics(db)
        if tp not in self._ids:
            known = self.topic(tp.topic).partitions
            raise TransportError(f"Topic {tp.topic!r} has partitions 0 to {known - 1}, and {tp.partition} was asked for.")
        return self._ids[tp]

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """First offset still kept, and the offset after the last one."""
        with self._read() as db:
            begin, end = db.execute("SELECT begin_offset, end_offset FROM partitions WHERE id = ?", (self._id(db, tp),)).fetchone()
            return int(begin), int(end)

    def all_bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        """As `bounds`, for every partition of every topic."""
        with self._read() as db:
            rows = db.execute("SELECT t.name, p.partition, p.begin_offset, p.end_offset FROM partitions p JOIN topics t ON t.id = p.topic_id").fetchall()
            return {TopicPartition(topic, partition): (begin, end) for topic, partition, begin, end in rows}

    # writing

    def append(self, topic: str, partition: int, raw: bytes) -> int:
        """Append one log batch; gives the offset of its first record."""
        return self.append_many([(topic, partition, raw)])[0]

    def append_many(self, appends: Sequence[Append]) -> list[int]:
        """Append log batches in one transaction, in order; gives the offset of each one's first record."""
        with self._write() as db:
            return [self._append(db, TopicPartition(t, p), None, _count(t, raw), raw) for t, p, raw in appends]

    def append_hole(self, topic: str, partition: int, count: int, kind: Kind) -> int:
        """Append `count` offsets without records, as transactions and compaction leave them in Kafka."""
        with self._write() as db:
            return self._append(db, TopicPartition(topic, partition), kind, count, b"")

    def _append(self, db: sqlite3.Connection, tp: TopicPartition, kind: Kind | None, count: int, raw: bytes) -> int:
        id_ = self._id(db, tp)
        base = int(db.execute("UPDATE partitions SET end_offset = end_offset + ? WHERE id = ? RETURNING end_offset", (count, id_)).fetchone()[0]) - count
        placed = struct.pack(">q", base) + memoryview(raw)[8:] if raw else b""  # the checksum does not cover the base offset
        row = (id_ << PARTITION_SHIFT | base, base + count - 1, self._now_ms(), kind, placed)
        db.execute("INSERT INTO log_batches (id, last_offset, appended_ms, kind, raw) VALUES (?, ?, ?, ?, ?)", row)
        return base

    # reading

    def read(self, tp: TopicPartition, position: int, max_bytes: int) -> list[LogBatch]:
        """Log batches from the one that holds `position` on, at least one if there is any, then up to `max_bytes`.

        Bytes are handed over as SQLite gives them, not copied again; each batch's checksum is checked.
        """
        with self._read() as db:
            key = self._id(db, tp) << PARTITION_SHIFT
            before = db.execute("SELECT id FROM log_batches WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1", (key, key | position)).fetchone()
            rows = db.execute(
                "SELECT id, last_offset, kind, raw FROM log_batches WHERE id BETWEEN ? AND ? ORDER BY id",
                (before[0] if before else key, key | (1 << PARTITION_SHIFT) - 1),
            )
            found, size_bytes = [], 0
            for id_, last, kind, raw in rows:
                if last < position:
                    continue
                found.append(self._log_batch(tp, id_ - key, last, kind, raw, position))
                size_bytes += len(raw)
                if size_bytes >= max_bytes:
                    break
            rows.close()
            return found

    def _log_batch(self, tp: TopicPartition, base: int, last: int, kind: str | None, raw: bytes, position: int) -> LogBatch:
        if kind is not None:
            return LogBatch.hole(tp.topic, tp.partition, max(base, position), last, Kind(kind))
        if not is_intact(raw):
            raise LogCorruptError(
                f"The log batch at offset {base} of {tp.topic}/{tp.partition} in {self.path} does not match its checksum. "
                "Restore the file from a copy; committed rows are safe in the tables."
            )
        return LogBatch.parse(tp.topic, tp.partition, raw, position)

    # groups

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember where a group stands."""
        self._remember("group_offsets", group, offsets)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Where a group stands; partitions that it never committed are missing."""
        with self._read() as db:
            rows = db.execute("SELECT topic, partition, next_offset FROM group_offsets WHERE name = ?", (group,)).fetchall()
            return {TopicPartition(t, p): offset for t, p, offset in rows}

    def set_floors(self, group: str, floors: Mapping[TopicPartition, int]) -> None:
        """Offsets from which on the group still needs the log, whatever their age."""
        self._remember("floors", group, floors)

    def set_floor(self, group: str, tp: TopicPartition, offset: int) -> None:
        """As `set_floors`, for one partition."""
        self.set_floors(group, {tp: offset})

    def _remember(self, table: str, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        rows = [(group, topic, partition, offset) for (topic, partition), offset in offsets.items()]
        with self._write() as db:
            db.executemany(f"INSERT OR REPLACE INTO {table} (name, topic, partition, next_offset) VALUES (?, ?, ?, ?)", rows)

    # retention

    def expire(self, retention_ms: int) -> int:
        """Delete log batches older than the retention, oldest first, never past a floor; gives how many.

        A topic's own `retention.ms` comes before `retention_ms` (-1 keeps for ever); a compacted topic keeps all.
        """
        deleted = 0
        for info in self.topics().values():
            keep_ms = int(info.config.get("retention.ms", retention_ms))
            if keep_ms < 0 or (info.is_compacted and "delete" not in info.config.get("cleanup.policy", "")):
                continue
            for partition in range(info.partitions):
                deleted += self._expire(TopicPartition(info.name, partition), self._now_ms() - keep_ms)
        return deleted

    def _expire(self, tp: TopicPartition, older_than_ms: int) -> int:
        deleted = 0
        while count := self._expire_some(tp, older_than_ms):
            deleted += count
        return deleted

    def _expire_some(self, tp: TopicPartition, older_than_ms: int) -> int:
        with self._read() as db:
            key = self._id(db, tp) << PARTITION_SHIFT
            if not self._expired(db, tp, key, older_than_ms):
                return 0
        with self._write() as db:  # floors and rows are read again under the write lock
            rows = self._expired(db, tp, key, older_than_ms)
            if rows:
                db.execute("DELETE FROM log_batches WHERE id BETWEEN ? AND ?", (key, rows[-1][0]))
                db.execute("UPDATE partitions SET begin_offset = ? WHERE id = ?", (rows[-1][1] + 1, key >> PARTITION_SHIFT))
            return len(rows)

    def _expired(self, db: sqlite3.Connection, tp: TopicPartition, key: int, older_than_ms: int) -> list[tuple[int, int]]:
        """Row id and last offset of the oldest log batches that are too old and below every floor."""
        (floor,) = db.execute("SELECT min(next_offset) FROM floors WHERE topic = ? AND partition = ?", tp).fetchone()
        oldest = db.execute(
            "SELECT id, last_offset, appended_ms FROM log_batches WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (key, key | (1 << PARTITION_SHIFT) - 1, EXPIRED_AT_ONCE),
        )
        expired: list[tuple[int, int]] = []
        for id_, last, appended_ms in oldest.fetchall():
            if appended_ms >= older_than_ms or (floor is not None and last >= floor):
                break
            expired.append((id_, last))
        return expired

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as exc:
                raise plainly(exc, self.path) from exc

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._read() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has rolled back by itself where the disk was full
                    db.execute("ROLLBACK")
                raise


def _count(topic: str, raw: bytes) -> int:
    try:
        return offsets_of(raw)
    except ValueError as exc:
        raise TransportError(f"Refused to append to {topic!r}: {exc}") from exc
