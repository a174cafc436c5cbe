"""`k2 adopt`: a vector for a table that lost its own, from the rows' own topic, partition and offset; or one that accepts lost offsets."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from k2stream.clock import Deadline
from k2stream.errors import LakeError
from k2stream.lake.catalog import open_catalog
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.files import FileLists
from k2stream.lake.head import Head, head_or_start, name_of
from k2stream.lake.offsets import Counts, Entry, Vector
from k2stream.lake.reader import TableReader
from k2stream.lake.summary import KIND, Carried
from k2stream.lake.trouble import translated
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.table_file import TableFile

ORIGIN = ["topic", "partition", "offset"]


def adopt_table(settings: Settings, name: str, deadline: Deadline) -> Head:
    """`adopt` for a table of the lake that the settings name, which no worker needs to have open."""
    with closing(TableReader(open_catalog(settings), settings, name)) as reader:
        committer = Committer(reader.catalog, reader.name, worker_id="adopt", on_step=lambda _: None, read_head=head_or_start)
        return adopt(committer, FileLists(lambda _: committer.table or committer.load()), deadline)


def adopt(committer: Committer, lists: FileLists, deadline: Deadline) -> Head:
    """Commit an empty snapshot whose vector follows the rows: `start = next`, ledger zero.

    Offsets after a partition's last row are read again: what became of them no row tells, and their duplicates and
    letters make no row. Raises LakeError if the table has a vector, or has no row to take one from.
    """
    seen: dict[int, Vector] = {}

    def change(head: Head) -> Addition:
        if head.has_own_vector or head.vector:
            raise LakeError(f"{'.'.join(name)} has an offset vector: there is nothing to adopt. Start the worker.")
        assert head.snapshot_id is not None
        files = lists.files(head.snapshot_id)
        if head.snapshot_id not in seen:
            seen[head.snapshot_id] = vector_of_rows(files, committer)
        # Without the watermark a worker would take the table for one that never had a row, and ask it nothing.
        newest = [upper for file in files if isinstance(upper := file.upper.get("timestamp"), int)]
        return Addition(Carried(seen[head.snapshot_id], max(newest, default=None)), says={KIND: "adopt"})

    name = committer.load().name()
    return committer.apply(change, commit_id=str(uuid4()), deadline=deadline)


def accept_loss(settings: Settings, name: str, begins: Mapping[TopicPartition, int], deadline: Deadline) -> dict[TopicPartition, tuple[int, int]]:
    """Let partitions whose `next` lies before the log's beginning go on at `begins`, with a new count (`start = next`, ledger zero).

    Returns the offsets given up, per partition first and last. Raises LakeError.
    """
    with closing(TableReader(open_catalog(settings), settings, name)) as reader:
        committer = Committer(reader.catalog, reader.name, worker_id="adopt", on_step=lambda _: None)
        given_up: dict[TopicPartition, tuple[int, int]] = {}

        def change(head: Head) -> Addition | None:
            lost = {tp: begins[tp] for tp, entry in head.vector.items() if entry.next < begins.get(tp, 0)}
            given_up.clear()
            given_up.update({tp: (head.vector[tp].next, begin - 1) for tp, begin in lost.items()})
            begun = {tp: _begun(head.vector[tp], begin) for tp, begin in lost.items()}
            return Addition(replace(head.carried, vector={**head.vector, **begun}), says={KIND: "accept-loss"}) if lost else None

        committer.apply(change, commit_id=str(uuid4()), deadline=deadline)
        return given_up


def _begun(entry: Entry, begin: int) -> Entry:
    """A new count at `begin` that remembers what was lost before it: gaps that span it have that cause."""
    return replace(entry, start=begin, next=begin, counts=Counts(), mark=None, lost_from=entry.next)


def adopt_group(settings: Settings, name: str, deadline: Deadline) -> str | None:
    """Hand a table to the group of these settings; the group that it belonged to. A worker of that group is refused at its next commit."""
    with closing(TableReader(open_catalog(settings), settings, name)) as reader:
        committer = Committer(reader.catalog, reader.name, worker_id="adopt", on_step=lambda _: None)
        before: list[str | None] = [None]

        def change(head: Head) -> Addition | None:
            before[0] = head.carried.group
            if head.carried.group == settings.app_id:
                return None
            return Addition(replace(head.carried, group=settings.app_id), says={KIND: "adopt-group"})

        committer.apply(change, commit_id=str(uuid4()), deadline=deadline)
        return before[0]


def vector_of_rows(files: Iterable[TableFile], committer: Committer) -> Vector:
    """Per topic partition an entry after its last row; a file at a time is in memory."""
    ends: dict[TopicPartition, int] = {}
    table = committer.table
    assert table is not None
    for file in files:
        with translated("read rows", file.path), table.io.new_input(file.path).open() as stream:
            last = _last_offsets(pq.read_table(stream, columns=ORIGIN))
        for topic, partition, offset in zip(*(last[name].to_pylist() for name in last.column_names), strict=True):
            if topic is not None and partition is not None and offset is not None:
                tp = TopicPartition(topic, partition)
                ends[tp] = max(ends.get(tp, 0), offset + 1)
    if not ends:
        raise LakeError(f"{name_of(table)} has no row that names its topic, partition and offset: no vector can be made from it.")
    return {tp: Entry(end, end) for tp, end in ends.items()}


def _last_offsets(rows: pa.Table) -> pa.Table:
    return rows.group_by(["topic", "partition"]).aggregate([("offset", "max")]).select(["topic", "partition", "offset_max"])

