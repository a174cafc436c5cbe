"""A table that commands append to: each append is one snapshot, once, by the same rules as a window's commit."""

from types import TracebackType
from typing import Self
from uuid import uuid4

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from k2stream.clock import Deadline
from k2stream.lake.catalog import open_catalog, open_table
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.expiry import Expiry
from k2stream.lake.file_io import sync_folders_of
from k2stream.lake.files import FileLists
from k2stream.lake.head import head_or_start
from k2stream.lake.parquet import ParquetFormat
from k2stream.lake.summary import KIND
from k2stream.lake.trouble import translated
from k2stream.lake.writer import data_folder
from k2stream.settings import Settings
from k2stream.table_file import TableFile


class Journal:
    """One table of small appends; any number of processes may append."""

    def __init__(self, settings: Settings, declaration: TableDeclaration, *, catalog: Catalog | None = None) -> None:
        """Opens the catalog if none is given; raises LakeError. The table is made by the first append."""
        self._catalog, self._is_own = catalog or open_catalog(settings), catalog is None
        self._settings, self._declaration = settings, declaration
        name = (settings.namespace, declaration.name)
        self._committer = Committer(self._catalog, name, worker_id=declaration.name, on_step=lambda _: None, read_head=head_or_start)
        self._expiry = Expiry(self._committer, kept=settings.snapshots_kept, is_taken=lambda _t, _s: True)
        self._lists = FileLists(lambda _: self._committer.table or self._committer.load())

    def append(self, rows: pa.Table) -> None:
        """Returns once these rows are in the table; nothing if there are none. Raises as Committer.apply does."""
        if not rows.num_rows:
            return
        table = self._committer.table or open_table(self._catalog, self._settings, self._declaration)
        commit_id, deadline = str(uuid4()), Deadline.after(self._settings.commit_timeout_ms / 1000)
        form, location = ParquetFormat(table, self._declaration), f"{data_folder(table)}/{commit_id}.parquet"
        with translated("write rows", location):
            files = [form.write(table.io, location, form.whole(rows))]
            sync_folders_of(table.io, [location])
        self._committer.apply(lambda head: Addition(head.carried, files=files, says={KIND: "journal"}), commit_id=commit_id, deadline=deadline)
        if self._expiry.is_due():
            self._expiry.run(deadline)

    def files(self) -> list[TableFile]:
        """The table's data files now, none if there is no table; raises LakeError."""
        with translated("read the table", ".".join(self._committer.name)):
            try:
                self._committer.table = self._catalog.load_table(self._committer.name)
            except NoSuchTableError:
                return []
        snapshot = self._committer.table.current_snapshot()
        return [] if snapshot is None else self._lists.files(snapshot.snapshot_id)

    def close(self) -> None:
        """Give the catalog's connections back, if they are its own."""
        if self._is_own:
            self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
