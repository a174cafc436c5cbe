"""Events that no record caused: a person's word about gaps, appended to the gaps table by the commit protocol, each once by its id."""

from contextlib import closing
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2stream.clock import Clock, Deadline, SystemClock
from k2stream.errors import LakeError
from k2stream.lake.catalog import open_catalog
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.declaration import COMMIT_FIELDS
from k2stream.lake.declared import declared_by
from k2stream.lake.file_io import sync_folders_of
from k2stream.lake.files import FileLists
from k2stream.lake.head import Head, head_or_start
from k2stream.lake.parquet import ParquetFormat
from k2stream.lake.reader import TableReader
from k2stream.lake.summary import KIND
from k2stream.lake.trouble import translated
from k2stream.lake.writer import data_folder
from k2stream.settings import Settings
from k2stream.table_file import TableFile

ID = "event_id"
NEEDED = ("gap_id", "waived_by", "waived_because")
"""Columns that a table of an older version lacks."""


def append_waivers(settings: Settings, events: pa.Table, deadline: Deadline, *, clock: Clock | None = None) -> int:
    """Append events of the kind `waived`; how many of them the gaps table did not hold yet.

    Whoever says the same at the same time, one of them lands. Raises LakeError, and Outraced if workers were faster until the deadline.
    """
    with closing(TableReader(open_catalog(settings), settings, "gaps")) as reader:
        committer = Committer(reader.catalog, reader.name, worker_id="waive", on_step=lambda _: None, step="5", read_head=head_or_start)
        waiving = _Waiving(committer, events, (clock or SystemClock()).now_us())
        committer.apply(waiving.on, commit_id=waiving.commit_id, deadline=deadline)
        return waiving.appended


class _Waiving:
    """One append, to whatever head the gaps table has by now."""

    def __init__(self, committer: Committer, events: pa.Table, now_us: int) -> None:
        self.commit_id, self.appended = str(uuid4()), 0
        self._committer, self._events, self._now_us = committer, events, now_us
        self._lists = FileLists(lambda _: committer.table or committer.load())

    def on(self, head: Head) -> Addition | None:
        """What is still to be said on `head`; None if the table holds all of it."""
        held = self._held(head)
        new = self._events.filter(pc.invert(pc.is_in(self._events[ID], pa.array(sorted(held), pa.string()))))
        self.appended = new.num_rows
        if not new.num_rows:
            return None
        table = self._committer.table or self._committer.load()
        if lacking := [name for name in NEEDED if name not in table.schema().column_names]:
            where = ".".join(table.name())
            raise LakeError(f"{where} is of an older version and lacks {', '.join(lacking)}. Start a worker of this version once, then waive again.")
        form = ParquetFormat(table, declared_by(table))
        for field, value in zip(COMMIT_FIELDS, (self.commit_id, self._now_us), strict=True):
            new = new.append_column(field, pa.array([value] * new.num_rows, field.type))
        with translated("write waived gaps", table.location()):
            files = [form.write(table.io, f"{data_folder(table)}/waived-{uuid4()}.parquet", part) for part in form.slices(new)]
            sync_folders_of(table.io, [file.file_path for file in files])
        return Addition(head.carried, files=files, says={KIND: "waive"})

    def _held(self, head: Head) -> set[str]:
        """Which of the ids the table holds at `head`."""
        if head.snapshot_id is None:
            return set()
        table, wanted, held = self._committer.table or self._committer.load(), self._events[ID].combine_chunks(), set[str]()
        for file in self._lists.files(head.snapshot_id):
            if _may_hold(file, wanted):
                with translated("read gap events", file.path), table.io.new_input(file.path).open() as stream:
                    ids = pq.read_table(stream, columns=[ID])[ID]
                held.update(ids.filter(pc.is_in(ids, wanted)).to_pylist())
        return held


def _may_hold(file: TableFile, ids: pa.Array) -> bool:
    lower, upper = str(file.lower.get(ID, "")), file.upper.get(ID)
    return any(lower <= id and (upper is None or id <= str(upper)) for id in ids.to_pylist())
