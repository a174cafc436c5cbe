"""Copying a topic's records into another one, each once, however often the copying is killed.

The target belongs to the migration, and the order in which records go into each of its partitions follows from the source alone: its
partitions one after another, each up to the end that was written down at the start. So where a target partition ends tells how many of
its records are there, and a start after a crash skips exactly these. What a killed process had sent may arrive after that was looked up: log
batches bear the number of their first record, so a broker drops the second of two. A broker looks every ten minutes whose records are older than a
day, and forgets their numbers: of what comes even later the comparison at the end tells. Nothing is added to a record, so the target reads as fast
as the source.

Steps for crash tests: `migrate.send.before`, `migrate.sent` (one partition of several), `migrate.send.after`, `migrate.saved`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise

from k2stream.errors import MigrationError
from k2stream.feed.publisher import partition_of
from k2stream.records import Record, TopicPartition
from k2stream.settings import Settings
from k2stream.topics.checksum import Checksum, digest_of
from k2stream.topics.course import Course, CourseFile
from k2stream.topics.plan import Declared
from k2stream.transport.batch_builder import Numbered, build_log_batch
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_on
from k2stream.transport.sink import LogSink, Outgoing

CHUNK_RECORDS = 5_000
"""Read, sent and written down at once; so many are read again after a crash."""
BATCH_BYTES = 256 << 10
"""Keys and values in one log batch, far below what a broker takes (1 MB by default)."""

E_GONE = "{tp} begins at offset {begin} by now, and the migration goes on from {offset}: {what}."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round brought."""

    records: int
    checksum: str
    """The same of source and target."""


class Migration:
    """One source, one target, on the log that the settings name; used by one thread, then closed."""

    def __init__(self, settings: Settings, source: str, target: Declared, *, on_step: Callable[[str], None] = lambda step: None) -> None:
        """`target` is made if it does not exist; an existing one is taken as it is."""
        if source == target.name:
            raise MigrationError(f"{source} cannot be migrated into itself. Name another target.")
        self._settings, self._source, self._target, self._on_step = settings, source, target, on_step
        self._file = CourseFile(settings.home_path("migrations", f"{source}--{target.name}.json"))
        self._runner = asyncio.Runner()
        self._sink: LogSink = open_sink(settings)

    def close(self) -> None:
        """Let go of the log."""
        self._runner.run(self._sink.close())
        self._runner.close()

    def __enter__(self) -> "Migration":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def planned(self) -> Course:
        """What `run` would copy, or go on copying; changes nothing. Raises MigrationError where it would be refused."""
        return self._course(self._target_ends(default=[0] * self._target.partitions))

    def run(self, told: Callable[[int], None] = lambda records: None) -> Outcome:
        """Copy what is not copied yet, then compare source and target; `told` how many records were copied just now.

        Raises MigrationError, TransportError; running it again goes on from there.
        """
        with self._file.held():
            self._runner.run(self._sink.create_topic(self._target.name, self._target.partitions, self._target.config))
            ends = self._target_ends()
            course = self._course(ends)
            if course.producer_id < 0:
                course = replace(course, producer_id=self._runner.run(self._sink.new_producer_id()))
            self._file.save(course)
            course = self._copy(course, ends, told)
            outcome = self._verify(course)
            self._file.save(replace(course, is_verified=True))
            return outcome

    # --- where it stands --------------------------------------------------------------------------------------

    def _course(self, ends: Sequence[int]) -> Course:
        saved = self._file.load()
        if saved is None:
            if any(ends):
                raise MigrationError(f"{self._target.name} holds records, and no migration into it was begun here ({self._file.path}). Name an empty topic.")
            return self._round([begin for begin, _ in self._bounds(self._source)], ends)
        if (was := len(saved.target_ends)) != len(ends):
            raise MigrationError(f"{self._target.name} had {was} partitions and has {len(ends)} now: delete it and {self._file.path}, and begin anew.")
        if any(now < then for now, then in zip(ends, saved.target_ends, strict=True)):
            raise MigrationError(f"{self._target.name} ends before what was copied into it: it was made anew. Delete it and {self._file.path}, and begin anew.")
        if not saved.is_verified:
            return saved
        more = [begin for begin, _ in self._bounds(self._source)[len(saved.spans) :]]
        return self._round([*(end for _, end in saved.spans), *more], ends)

    def _round(self, begins: Sequence[int], ends: Sequence[int]) -> Course:
        spans = tuple((begin, end) for begin, (_, end) in zip(begins, self._bounds(self._source), strict=True))
        return Course(self._source, self._target.name, spans, tuple(ends), 0, spans[0][0], tuple(ends))

    def _target_ends(self, default: Sequence[int] | None = None) -> list[int]:
        if default is not None and self._target.name not in self._runner.run(self._sink.topics()):
            return list(default)
        return [end for _, end in self._bounds(self._target.name)]

    def _bounds(self, topic: str) -> list[tuple[int, int]]:
        async def ask() -> list[tuple[int, int]]:
            count = await self._sink.partitions(topic)
            return list(await asyncio.gather(*(self._sink.bounds(TopicPartition(topic, p)) for p in range(count))))

        return self._runner.run(ask())

    # --- copying ----------------------------------------------------------------------------------------------

    def _copy(self, course: Course, ends: Sequence[int], told: Callable[[int], None]) -> Course:
        ahead = _Ahead(self, course, ends)
        while not course.is_copied:
            for chunk in _chunks(self._records(TopicPartition(self._source, course.partition), course.offset, course.spans[course.partition][1])):
                course = self._copy_chunk(course, chunk, ahead)
                told(len(chunk))
            following = course.partition + 1
            course = replace(course, partition=following, offset=course.spans[following][0] if following < len(course.spans) else 0)
        ahead.require_none()
        self._file.save(course)
        return course

    def _copy_chunk(self, course: Course, chunk: Sequence[Record], ahead: "_Ahead") -> Course:
        placed: dict[int, list[Record]] = defaultdict(list)
        for record in chunk:
            placed[_place(record, len(course.target_ends))].append(record)
        missing = {partition: self._missing(course, partition, records, ahead) for partition, records in placed.items()}
        self._on_step("migrate.send.before")
        self._runner.run(self._send(missing))
        self._on_step("migrate.send.after")
        ends = tuple(end + len(placed.get(partition, ())) for partition, end in enumerate(course.target_ends))
        course = replace(course, offset=chunk[-1].offset + 1, target_ends=ends)
        self._file.save(course)
        self._on_step("migrate.saved")
        return course

    def _missing(self, course: Course, partition: int, records: Sequence[Record], ahead: "_Ahead") -> list[bytes]:
        """Log batches that the target's partition lacks.

        Cut before what is there is left out: one that is still under way from a killed process is known by having the same borders.
        """
        number, found = course.target_ends[partition] - course.started_at[partition], list[bytes]()
        for batch in _batches(records):
            number += len(batch)
            if missing := ahead.skip(partition, batch):
                outgoing = [Outgoing(r.key, r.value, r.timestamp_ms, r.headers) for r in missing]
                found.append(build_log_batch(outgoing, numbered=Numbered(course.producer_id, number - len(missing))))
        return found

    async def _send(self, missing: Mapping[int, Sequence[bytes]]) -> None:
        await asyncio.gather(*(self._send_to(partition, batches) for partition, batches in missing.items()))

    async def _send_to(self, partition: int, batches: Sequence[bytes]) -> None:
        for raw in batches:
            await self._sink.send_batch(self._target.name, partition, raw)
            self._on_step("migrate.sent")

    def _records(self, tp: TopicPartition, offset: int, end: int) -> Iterator[Record]:
        """Records of one partition from `offset` up to `end`."""
        if offset >= end:
            return
        begin, _ = self._runner.run(self._sink.bounds(tp))
        if begin > offset:
            what = "its retention has removed records that were not copied yet"
            if tp.topic != self._source:
                what = "its retention removes what is copied; raise it"
            raise MigrationError(E_GONE.format(tp=f"{tp.topic}/{tp.partition}", begin=begin, offset=offset, what=what))
        found = read_on(self._settings, {tp: offset})
        with closing(found):  # type: ignore[type-var] # it is a generator
            for record in found:
                if record.offset >= end:
                    return
                yield record

    def record_at(self, tp: TopicPartition, offset: int) -> Record | None:
        """One record of the target; None if its retention has removed it."""
        begin, _ = self._runner.run(self._sink.bounds(tp))
        return next(self._records(tp, offset, offset + 1), None) if begin <= offset else None

    # --- comparing --------------------------------------------------------------------------------------------

    def _verify(self, course: Course) -> Outcome:
        source = self._checksum(course.source, course.spans)
        spans = tuple(zip(course.started_at, self._target_ends(), strict=True))
        target = self._checksum(course.target, spans)
        if (source.records, source.hexdigest()) != (target.records, target.hexdigest()):
            raise MigrationError(
                f"{course.target} holds {target.records:,} records of this migration with checksum {target.hexdigest()}, {course.source} holds "
                f"{source.records:,} with {source.hexdigest()}. Somebody else wrote to the target, or the source changed (retention, "
                f"compaction) while it was copied: delete {course.target} and {self._file.path}, and begin anew."
            )
        return Outcome(source.records, source.hexdigest())

    def _checksum(self, topic: str, spans: Sequence[tuple[int, int]]) -> Checksum:
        checksum = Checksum()
        for partition, (begin, end) in enumerate(spans):
            for record in self._records(TopicPartition(topic, partition), begin, end):
                checksum.add(record)
        return checksum


class _Ahead:
    """What the target holds beyond the course: a crash came between sending and writing down."""

    def __init__(self, migration: Migration, course: Course, ends: Sequence[int]) -> None:
        self._migration, self._target, self._ends = migration, course.target, ends
        self._left = [now - then for now, then in zip(ends, course.target_ends, strict=True)]

    def skip(self, partition: int, records: Sequence[Record]) -> Sequence[Record]:
        """The records that the target's partition lacks; the last one that it has is compared with what it should be."""
        left = self._left[partition]
        if not left:
            return records
        there = records[:left]
        self._left[partition] -= len(there)
        if not self._left[partition]:
            tp = TopicPartition(self._target, partition)
            found = self._migration.record_at(tp, self._ends[partition] - 1)
            if found is not None and digest_of(found) != digest_of(there[-1]):
                raise MigrationError(self._foreign(partition))
        return records[left:]

    def require_none(self) -> None:
        """Raises MigrationError if the target holds more than the source gave."""
        for partition, left in enumerate(self._left):
            if left:
                raise MigrationError(self._foreign(partition))

    def _foreign(self, partition: int) -> str:
        return (
            f"{self._target}/{partition} holds records that this migration did not bring, or the source lost some meanwhile. "
            "A target must be written to by its migration only: delete it and the migration's file, and begin anew."
        )


def _place(record: Record, partitions: int) -> int:
    """Where feeds put a record of this key; one without a key stays in the partition of its number."""
    return record.partition % partitions if record.key is None else partition_of(record.key, partitions)


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK_RECORDS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Consecutive records, as many as fit into a log batch, at least one."""
    borders, size_bytes = [0], 0
    for number, record in enumerate(records):
        own = len(record.key or b"") + len(record.value or b"") + sum(len(n) + len(v) for n, v in record.headers)
        if size_bytes and size_bytes + own > BATCH_BYTES:
            borders.append(number)
            size_bytes = 0
        size_bytes += own
    return (records[first:last] for first, last in pairwise([*borders, len(records)]))
