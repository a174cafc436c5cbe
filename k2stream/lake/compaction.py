"""Small files of a table into few large ones, inside the commit protocol: the same head rule, the same vector, no row more or less.

    1  the rows of a job's files, sorted, in new files, written and synced
    2  rows counted and their checksum compared, as a reader finds them in both
    3  one overwrite: the old files, all of them live on the head just read, for the new ones (kind `compaction`)

A conflict repeats step 3 with the same files on the new head. Nothing is deleted: until step 3 the new files are orphans, and after it
the old ones stay until no kept snapshot names them (orphans.py). What is carried on is what the head carries, never names of the outbox.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import structlog
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2stream.clock import Clock, Deadline
from k2stream.errors import LakeError
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.declared import declared_by, is_rewritable, unique_columns
from k2stream.lake.file_io import local_path, sync_folder
from k2stream.lake.files import Columns
from k2stream.lake.head import Head, name_of
from k2stream.lake.jobs import Candidate, Job, plan_jobs
from k2stream.lake.merge import sorted_groups
from k2stream.lake.overwrite import live_files
from k2stream.lake.parquet import ParquetFormat, Slice, partition_path
from k2stream.lake.summary import KIND
from k2stream.lake.trouble import translated
from k2stream.lake.writer import data_folder
from k2stream.table_file import TableFile

log = structlog.get_logger(__name__)

TIMES = ("timestamp", "first_seen", "written_at")
"""Columns that say when a row was, whichever of them a table has: files of a job are neighbours in it."""

IsSame = Callable[[Sequence[TableFile], Sequence[TableFile], Sequence[str]], bool]
"""True if the columns of two sets of files hold the same rows, as often, in whatever order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How compaction goes about it."""

    target_bytes: int
    min_files: int
    memory_bytes: int
    """Rows held in memory while they are sorted."""
    stale_after_us: int
    """Files older than this are not committed: they may be taken for orphans."""
    commit_seconds: float


@dataclass(frozen=True, slots=True)
class Compacted:
    """What one job came to."""

    job: Job
    outputs: tuple[str, ...]
    output_bytes: int
    has_landed: bool
    """False if another writer had replaced one of its files: there is nothing left to do for it."""


class Compaction:
    """Compacts one table; any number may try at once, each job lands once."""

    def __init__(
        self, committer: Committer, limits: Limits, *, spill: Path, is_same: IsSame, clock: Clock, on_step: Callable[[str], None], is_synced: bool
    ) -> None:
        """`committer` hears its own steps; `spill` is a folder for what is being sorted."""
        self._committer, self._limits, self._spill, self._is_same = committer, limits, spill, is_same
        self._clock, self._on_step, self._is_synced = clock, on_step, is_synced

    def plan(self, *, is_whole: bool) -> list[Job]:
        """What is to be done on the head as it is now; raises LakeError."""
        table = self._committer.load()
        if not is_rewritable(table):
            return []
        limits = self._limits
        return plan_jobs(candidates(table, live_files(table).values()), target_bytes=limits.target_bytes, min_files=limits.min_files, is_whole=is_whole)

    def run(self, job: Job) -> Compacted:
        """Steps 1 to 3 of one job. Raises LakeError; then the table is as it was, or has the job's snapshot."""
        table, written_at_us = self._committer.load(), self._clock.now_us()
        old = self._inputs(table, job)
        if old is None:
            return Compacted(job, (), 0, has_landed=False)
        new = self._write(table, job, old)
        self._on_step("compact.1.written")
        self._compare(table, job, old, new)
        self._on_step("compact.2.checked")
        has_landed = self._commit(job, new, written_at_us)
        done = Compacted(job, tuple(f.file_path for f in new), sum(f.file_size_in_bytes for f in new), has_landed)
        log.info("compaction.done", table=name_of(table), files=len(old), into=len(new), rows=job.rows, bytes=done.output_bytes, landed=has_landed)
        return done

    def _inputs(self, table: Table, job: Job) -> list[DataFile] | None:
        """The job's files on the head; None if another writer took one out."""
        live = live_files(table)
        return [live[f.path] for f in job.files] if all(f.path in live for f in job.files) else None

    def _write(self, table: Table, job: Job, old: Sequence[DataFile]) -> list[DataFile]:
        """Step 1: equal shares of the rows, in the table's order."""
        with translated("write merged files", name_of(table)):
            form = ParquetFormat(table, declared_by(table, unique_columns(table.io, job.files[0].path)))
            folder = f"{data_folder(table)}/{partition_path(form.declaration, tuple(old[0].partition))}"  # type: ignore[arg-type] # days and texts
            groups = sorted_groups(table.io, [f.path for f in job.files], form, memory_bytes=self._limits.memory_bytes, spill=self._spill)
            name, new = uuid4(), list[DataFile]()
            for number, share in enumerate(shared_out(groups, -(-job.rows // job.outputs))):
                new.append(_written(form, table.io, f"{folder}{number:05}-{name}.parquet", old[0], share))
            self._sync(new)
        return new

    def _sync(self, new: Sequence[DataFile]) -> None:
        paths = [path.parent for f in new if (path := local_path(f.file_path)) is not None]
        for folder in set(paths) if self._is_synced else ():
            sync_folder(folder)

    def _compare(self, table: Table, job: Job, old: Sequence[DataFile], new: Sequence[DataFile]) -> None:
        """Step 2; raises LakeError if a row is more, less or other than it was."""
        before, after = sum(f.record_count for f in old), sum(f.record_count for f in new)
        names = [f.name for f in table.schema().fields]
        if before != after or not self._is_same([as_read(f) for f in old], [as_read(f) for f in new], names):
            raise LakeError(
                f"{name_of(table)}, partition {job.partition}: {before:,} rows of {len(old)} files are not the {after:,} of the merged ones, or their "
                "checksums differ. Nothing was replaced. Check the disk, then run `k2 audit`."
            )

    def _commit(self, job: Job, new: Sequence[DataFile], written_at_us: int) -> bool:
        """Step 3. Raises as Committer.apply does."""
        drops, is_over = frozenset(f.path for f in job.files), list[bool]()

        def change(head: Head) -> Addition | None:
            is_old = self._clock.now_us() - written_at_us > self._limits.stale_after_us
            assert self._committer.table is not None
            if is_old or not drops <= live_files(self._committer.table).keys():
                is_over.append(True)
                return None
            return Addition(head.carried, files=new, drops=drops, says={KIND: "compaction"})

        self._committer.apply(change, commit_id=str(uuid4()), deadline=Deadline.after(self._limits.commit_seconds))
        return not is_over


@dataclass(frozen=True, slots=True)
class _Stream(Slice):
    """Rows of a partition that come sorted, a row group at a time."""

    groups: Iterator[pa.Table]

    def row_groups(self) -> Iterator[pa.Table]:
        return self.groups


def _written(form: ParquetFormat, io: FileIO, location: str, like: DataFile, groups: Iterator[pa.Table]) -> DataFile:
    cast = (form.cast(group) for group in groups)
    first = next(cast)
    return form.write(io, location, _Stream(tuple(like.partition), first, np.empty(0, np.int64), chain([first], cast)))  # type: ignore[arg-type] # days and texts


def shared_out(groups: Iterator[pa.Table], rows: int) -> Iterator[Iterator[pa.Table]]:
    """Streams of about so many rows each, one after the other; a row group is never cut."""
    waiting = next(groups, None)

    def share() -> Iterator[pa.Table]:
        nonlocal waiting
        left = rows
        while waiting is not None and left > 0:
            left -= waiting.num_rows
            yield waiting
            waiting = next(groups, None)

    while waiting is not None:
        yield share()


def candidates(table: Table, files: Iterable[DataFile]) -> list[Candidate]:
    """Files that this table's present partitioning made."""
    columns, spec_id = Columns(table.schema()), table.metadata.default_spec_id
    return [_candidate(f, columns) for f in files if f.spec_id == spec_id]


def _candidate(file: DataFile, columns: Columns) -> Candidate:
    bounds = columns.values(file.lower_bounds)
    first = next((value for name in TIMES if isinstance(value := bounds.get(name), int)), 0)
    partition = tuple(file.partition[i] for i in range(len(file.partition)))
    return Candidate(file.file_path, partition, file.file_size_in_bytes, file.record_count, first)


def as_read(file: DataFile) -> TableFile:
    """A file as queries take it."""
    return TableFile(file.file_path, file.record_count, file.file_size_in_bytes, {}, {})
