"""Windows of changes into a table that keeps one row a key: small partitions are replaced whole, in the commit protocol (design §9).

    1  nothing of the rows is written: what they become is the head's to say
    2  load the head, compare its vector with the window's start: the fence. Then read the files of every partition that a change
       lies in, and write what it is afterwards as one new file each
    3  one snapshot that takes those files out and puts these in, required to follow exactly that head
    4  as for windows of rows; on a new head only partitions whose files are others by now are merged again

New files have all columns of the table as it will be, those that the window brings included: the snapshot adds them, as for windows of
rows (evolution.py). Their field ids are those that this very head gives, so on a head with another schema everything is merged again.

What a partition becomes follows from its files and the changes alone, so any number of attempts ends in the same rows. A crash leaves
orphan files or the new snapshot. PyIceberg's own upsert joins the whole table row by row in Python (1 M rows took 17.5 minutes).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from k2stream.clock import Deadline
from k2stream.instruments.merge import IS_END, KEPT, merged
from k2stream.lake.commit import Addition, window_on
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.evolution import arrow_columns, more_columns
from k2stream.lake.file_io import local_path, sync_folder
from k2stream.lake.head import Head
from k2stream.lake.merge import FIELD_ID, aligned
from k2stream.lake.offsets import Counts, Vector
from k2stream.lake.overwrite import live_files
from k2stream.lake.parquet import ParquetFormat, Partition, Slice, partition_path
from k2stream.lake.summary import KIND
from k2stream.lake.table import RowsLake
from k2stream.lake.trouble import translated
from k2stream.lake.window import Window
from k2stream.lake.writer import Staged, data_folder
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.table_file import TableFile


@dataclass(frozen=True, slots=True)
class Replaced:
    """One partition after a window."""

    drops: tuple[str, ...]
    """The files that it was."""
    file: DataFile | None
    """What it is now; None if nothing is left."""
    gained: Counter[TopicPartition]
    """Rows by origin, less those that it had before."""


class InstrumentsLake(RowsLake):
    """Takes windows of changes (k2stream.instruments.merge.CHANGES); all else as for rows."""

    def __init__(
        self, catalog: Catalog, settings: Settings, rows: tuple[Table, TableDeclaration], *beside: tuple[Table, TableDeclaration], **options: Any
    ) -> None:
        super().__init__(catalog, settings, rows, *beside, **options)
        self._forms, self._is_synced = Forms(rows[1]), settings.fsync

    def write(self, window: Window) -> Staged:
        """Step 1: letters only; the rows wait for the head."""
        return replace(super().write(replace(window, rows=KEPT.empty_table())), window=window)

    def read(self, file: TableFile) -> pa.Table:
        """Rows of one data file with all columns of the table; raises LakeError."""
        table = self._seen or self.load()
        with translated("read", file.path):
            rows = _read(table, file.path)
        if not _knows(table, rows.schema):
            table = self.load()
        return aligned(rows, arrow_columns(table.schema()))

    def names_of_columns(self) -> list[str]:
        """What `read` gives, as far as the table was seen by now; raises LakeError if it never was, and the catalog does not say."""
        return [field.name for field in (self._seen or self.load()).schema().fields]

    def _commit(self, staged: Staged, deadline: Deadline) -> Head:
        table = self._rows
        replacing = Replacing(lambda: table.table or table.load(), self._forms, staged, on_step=self._on_step, is_synced=self._is_synced)
        return self._windows.apply(staged, replacing.on, deadline)


class Forms:
    """How files of whole rows are written, by the table's schema and the columns that a window brings; each is built once."""

    def __init__(self, declaration: TableDeclaration) -> None:
        self.declaration = declaration
        self._known: dict[tuple[int, int, tuple[pa.Field, ...]], ParquetFormat] = {}

    def on(self, table: Table, columns: tuple[pa.Field, ...]) -> ParquetFormat:
        """Raises Fenced if the table cannot take the columns, LakeError for a required column that nobody declared."""
        key = (table.metadata.current_schema_id, table.metadata.last_column_id, columns)
        if key not in self._known:
            self._known[key] = ParquetFormat(table, self.declaration, columns=columns, is_whole=True)
        return self._known[key]


class Replacing:
    """One window on its way into the table, on whatever head that has by now."""

    def __init__(self, table: Callable[[], Table], forms: Forms, staged: Staged, *, on_step: Callable[[str], None], is_synced: bool) -> None:
        """`table` as last loaded, which is the head that `on` is asked for."""
        self._table, self._forms, self._staged = table, forms, staged
        self._on_step, self._is_synced = on_step, is_synced
        self._changes = dict(self._by_partition(staged.window.rows))
        self._columns = more_columns(staged.window.rows.drop_columns([IS_END.name]).schema, KEPT) if staged.window.rows.num_rows else ()
        self._merged: dict[tuple[Partition, tuple[str, ...], ParquetFormat], Replaced] = {}

    def on(self, head: Head) -> Addition:
        """The snapshot that the window is on `head`; raises Fenced, or LakeError if a file cannot be read or written."""
        window, whole = self._staged.window, window_on(head, self._staged)
        table = self._table()
        with translated("replace partitions of", table.location()):
            form = self._forms.on(table, self._columns)
            parts = [self._replaced(table, form, head.vector, partition, paths) for partition, paths in self._inputs(table).items()]
            self._sync([part.file.file_path for part in parts if part.file is not None])
        self._on_step("2.merged")
        gained = sum((part.gained for part in parts), Counter[TopicPartition]())
        taken = Counter({tp: counts.rows for tp, counts in window.deltas.items()})
        taken.subtract(gained)
        carried = replace(whole.carried, vector=_retired(whole.carried.vector, taken))
        files = [part.file for part in parts if part.file is not None]
        drops, says = [path for part in parts for path in part.drops], {**whole.says, KIND: "replacement"}
        return Addition(carried, files=files, drops=drops, says=says, columns=self._columns if files else ())

    def _by_partition(self, changes: pa.Table) -> Iterator[tuple[Partition, pa.Table]]:
        """Changes of each partition of the table, oldest first."""
        if not changes.num_rows:
            return
        column, count = self._forms.declaration.buckets or ("company_id", 1)
        bucket_of = BucketTransform(count).transform(StringType())
        words = changes[column].combine_chunks().dictionary_encode()
        buckets = np.array([bucket_of(word) for word in words.dictionary.to_pylist()], np.int64)[words.indices.to_numpy()]
        for exchange in pc.unique(changes["exchange"]).to_pylist():
            is_its = pc.equal(changes["exchange"], exchange).to_numpy()
            for bucket in np.unique(buckets[is_its]).tolist():
                yield (exchange, bucket), changes.filter(pa.array(is_its & (buckets == bucket)))

    def _inputs(self, table: Table) -> Mapping[Partition, tuple[str, ...]]:
        """Files of the partitions that change."""
        found: defaultdict[Partition, list[str]] = defaultdict(list)
        for path, file in live_files(table).items():
            found[tuple(file.partition[i] for i in range(len(file.partition)))].append(path)
        return {partition: tuple(sorted(found[partition])) for partition in self._changes}

    def _replaced(self, table: Table, form: ParquetFormat, vector: Vector, partition: Partition, paths: tuple[str, ...]) -> Replaced:
        if (partition, paths, form) not in self._merged:
            self._merged[partition, paths, form] = self._merge(table, form, vector, partition, paths)
        return self._merged[partition, paths, form]

    def _merge(self, table: Table, form: ParquetFormat, vector: Vector, partition: Partition, paths: tuple[str, ...]) -> Replaced:
        held = pa.concat_tables([form.schema.empty_table(), *(aligned(_read(table, path), form.schema) for path in paths)])
        after = merged(held, self._changes[partition])
        gained = _origins(after, vector)
        gained.subtract(_origins(held, vector))
        return Replaced(paths, self._write(table, form, partition, after) if after.num_rows else None, gained)

    def _write(self, table: Table, form: ParquetFormat, partition: Partition, rows: pa.Table) -> DataFile:
        location = f"{data_folder(table)}/{partition_path(form.declaration, partition)}{uuid4()}.parquet"
        order = pc.sort_indices(rows, [(name, "ascending") for name in form.declaration.sort_by]).to_numpy()
        return form.write(table.io, location, Slice(partition, form.cast(rows), order))

    def _sync(self, locations: list[str]) -> None:
        paths = [path for location in locations if self._is_synced and (path := local_path(location)) is not None]
        for folder in {path.parent for path in paths}:
            sync_folder(folder)


def _read(table: Table, path: str) -> pa.Table:
    with table.io.new_input(path).open() as stream:
        return pq.read_table(stream)


def _knows(table: Table, columns: pa.Schema) -> bool:
    """Whether the table has all columns of a file; else it was loaded before they came."""
    known = {str(field.field_id).encode() for field in table.schema().fields}
    return all((f.metadata or {}).get(FIELD_ID) in {*known, None} for f in columns)


def _origins(rows: pa.Table, vector: Vector) -> Counter[TopicPartition]:
    """How many rows come from each partition of the log, as far as its ledger counts: not from before an adoption."""
    counts: Counter[TopicPartition] = Counter()
    for found in rows.group_by(["topic", "partition"]).aggregate([("offset", "min"), ([], "count_all")]).to_pylist():
        tp = TopicPartition(found["topic"], found["partition"])
        if tp in vector:
            counts[tp] = found["count_all"] if found["offset_min"] >= vector[tp].start else _from_start(rows, tp, vector[tp].start)
    return counts


def _from_start(rows: pa.Table, tp: TopicPartition, start: int) -> int:
    is_its = pc.and_(pc.equal(rows["topic"], tp.topic), pc.equal(rows["partition"], tp.partition))
    return int(pc.sum(pc.and_(is_its, pc.greater_equal(rows["offset"], start))).as_py())


def _retired(vector: Vector, taken: Mapping[TopicPartition, int]) -> Vector:
    """The vector with the rows counted that were taken, or stood there before, and do not stand there now."""
    moved = dict(vector)
    for tp, rows in taken.items():
        if rows:
            moved[tp] = replace(moved[tp], counts=moved[tp].counts + Counts(retired=rows))
    return moved
