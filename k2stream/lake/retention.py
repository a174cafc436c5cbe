"""Whole days that are past their time, out of a table: the ledger keeps their rows and counts them as `retired`, so that it adds up.

A day goes only if no restart needs it: rows above a partition's newest tracker file are what its state is brought up from.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2stream.clock import Deadline
from k2stream.errors import LakeError
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.declared import declared_by
from k2stream.lake.head import Head, name_of
from k2stream.lake.offsets import Counts, Vector
from k2stream.lake.overwrite import live_files
from k2stream.lake.summary import KIND
from k2stream.lake.trouble import translated
from k2stream.records import TopicPartition

ORIGIN = ["topic", "partition", "offset"]

KEPT_WHOLE: Mapping[str, str] = {
    "dead_letters": "`k2 audit` holds every letter that a ledger counts against it",
    "gaps": "what a gap has come to is told by all of its events, the first among them",
    "instruments": "it has one row a company, which trades of the past still need",
    "quality": "it was made before flags were cut by day",
    "replays": "a letter whose attempts are forgotten is tried for ever",
}
"""Tables that are not cut by day, so that none is ever taken out of them, with the reason."""

StateAt = Callable[[str, TopicPartition], int | None]
"""The offset at which a tracker file's state of a partition stands; None if it does not say."""


@dataclass(frozen=True, slots=True)
class OldDay:
    """One day of a table, of all exchanges, that is past its time."""

    day: int
    """Days since 1970."""
    files: tuple[DataFile, ...]
    retired: Mapping[TopicPartition, int]
    """Rows that the ledger counts: those of `start <= offset < next`."""
    needed_by: TopicPartition | None
    """A partition whose restart reads these rows; None: the day may go."""

    @property
    def rows(self) -> int:
        return sum(f.record_count for f in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(f.file_size_in_bytes for f in self.files)


class Retention:
    """Takes old days out of one table that is cut by day."""

    def __init__(self, committer: Committer, state_at: StateAt, *, on_step: Callable[[str], None]) -> None:
        self._committer, self._state_at, self._on_step = committer, state_at, on_step

    def plan(self, before_day: int) -> list[OldDay]:
        """Days before `before_day`, oldest first; raises LakeError if the table is not cut by day."""
        table = self._committer.load()
        if (why := why_whole(table)) is not None:
            raise LakeError(f"{name_of(table)} is not cut by day, {why}: expected a table that is, as trades or quotes. Leave it out of K2_KEEP_DAYS.")
        head, by_day = self._committer.head(), dict[int, list[DataFile]]()
        for file in live_files(table).values():
            if file.partition[0] < before_day and file.spec_id == table.metadata.default_spec_id:
                by_day.setdefault(file.partition[0], []).append(file)
        return [self._old_day(table, head.vector, day, files) for day, files in sorted(by_day.items())]

    def retire(self, day: OldDay, deadline: Deadline) -> bool:
        """Take the day's files out; False if another writer replaced one of them meanwhile: then it is planned anew. Raises as Committer.apply does."""
        drops, is_over = frozenset(f.file_path for f in day.files), list[bool]()
        self._on_step("retire.1.counted")

        def change(head: Head) -> Addition | None:
            assert self._committer.table is not None
            if not drops <= live_files(self._committer.table).keys():
                is_over.append(True)
                return None
            vector = {tp: replace(e, counts=e.counts + Counts(retired=day.retired.get(tp, 0))) for tp, e in head.vector.items()}
            return Addition(replace(head.carried, vector=vector), drops=drops, says={KIND: "retention"})

        self._committer.apply(change, commit_id=str(uuid4()), deadline=deadline)
        return not is_over

    def _old_day(self, table: Table, vector: Vector, day: int, files: Iterable[DataFile]) -> OldDay:
        held, retired, newest = tuple(files), Counter[TopicPartition](), dict[TopicPartition, int]()
        for file in held:
            for tp, offsets in _origins(table, file):
                entry = vector.get(tp)
                if entry is None:
                    continue
                counted = pc.and_(pc.greater_equal(offsets, entry.start), pc.less(offsets, entry.next))
                retired[tp] += pc.sum(counted).as_py()
                newest[tp] = max(newest.get(tp, -1), pc.max(offsets).as_py())
        needed = next((tp for tp, last in newest.items() if last >= self._needed_from(vector, tp)), None)
        return OldDay(day, held, retired, needed)

    def _needed_from(self, vector: Vector, tp: TopicPartition) -> int:
        """The first offset whose row a restart may read."""
        entry = vector[tp]
        at = self._state_at(entry.tracker_file, tp) if entry.tracker_file is not None else None
        return entry.start if at is None else at


def why_whole(table: Table) -> str | None:
    """Why no day is taken out of `table`, as its name says; None if it is cut by day. Raises LakeError if it is cut in a way that is not ours."""
    return None if declared_by(table).day_of is not None else KEPT_WHOLE.get(table.name()[-1], "its writer knows no days")


def _origins(table: Table, file: DataFile) -> Iterable[tuple[TopicPartition, pa.Array]]:
    with translated("read rows", file.file_path), table.io.new_input(file.file_path).open() as stream:
        rows = pq.ParquetFile(stream).read(columns=ORIGIN)
    lists = rows.group_by(["topic", "partition"]).aggregate([("offset", "list")])
    for topic, partition, offsets in zip(lists["topic"].to_pylist(), lists["partition"].to_pylist(), lists["offset_list"], strict=True):
        yield TopicPartition(topic, partition), offsets.values
