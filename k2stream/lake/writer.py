"""Step 1 of a commit: a window's files, side by side, on the disk before the catalog hears of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from k2stream.clock import Clock
from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration
from k2stream.lake.evolution import more_columns
from k2stream.lake.file_io import local_path, sync_folder
from k2stream.lake.head import name_of
from k2stream.lake.parquet import ParquetFormat, partition_path
from k2stream.lake.tracker_file import pack_tracker
from k2stream.lake.trouble import translated
from k2stream.lake.window import Window
from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Staged:
    """A window whose files are written and synced, not yet in the table. Committing it twice makes one snapshot."""

    window: Window
    commit_id: str
    """A UUID: found in an ancestor's summary, the window has landed."""
    written_at_us: int
    files: tuple[DataFile, ...]
    events_file: str | None
    """Location of the gap events' file, in the gaps table's own data folder; None without events."""
    tracker_file: str | None
    """Location of the tracker file; None if the window brought no state."""
    tracker_at: Mapping[TopicPartition, int]
    """Per partition of the tracker file the offset that its state stands at."""
    letters_file: str | None = None
    """Location of the dead letters' file, in their table's own data folder; None without letters."""
    columns: tuple[pa.Field, ...] = ()
    """What the rows have beyond the table's declaration."""
    flags_file: str | None = None
    """Location of the flags' file, in the quality table's own data folder; None without flags."""
    written_as: Schema | None = None
    """Names and field ids of the files' columns; None if the rows have no others than the declared."""


class WindowWriter:
    """Writes windows of one table; one thread at a time."""

    def __init__(
        self,
        rows: tuple[Table, TableDeclaration],
        events: tuple[Table, TableDeclaration],
        letters: tuple[Table, TableDeclaration] | None = None,
        flags: tuple[Table, TableDeclaration] | None = None,
        *,
        clock: Clock,
        on_step: Callable[[str], None],
        is_synced: bool,
    ) -> None:
        self._rows, self._events = rows[0], events[0]
        self._declaration, self._events_format = rows[1], ParquetFormat(*events)
        self._rows_formats: dict[tuple[int, tuple[pa.Field, ...]], ParquetFormat] = {(rows[0].metadata.current_schema_id, ()): ParquetFormat(*rows)}
        """By the table's schema and the columns that rows have beyond the declared ones."""
        self._letters = None if letters is None else (letters[0], ParquetFormat(*letters))
        self._flags = None if flags is None else (flags[0], ParquetFormat(*flags))
        self._clock, self._on_step, self._is_synced = clock, on_step, is_synced
        self._reached: dict[TopicPartition, int] = {}

    def write(self, window: Window, table: Table | None = None) -> Staged:
        """Write everything that `window` brings; raises LakeError with a plain sentence if the disk refuses.

        `table` is the table of rows as last seen, whose field ids the files get. Raises Fenced if it cannot take a column of the rows.
        """
        commit_id, now_us = str(uuid4()), self._clock.now_us()
        self._reached.update({tp: span[1] for tp, span in window.spans.items()})
        tracker_at = {tp: self._reached[tp] for tp in window.tracker or {} if tp in self._reached}
        with translated("write a window's files", self._rows.location()):
            form = self._form_for(window.rows, table or self._rows)
            files = self._write_rows(form, window.rows, commit_id)
            self._on_step("1.rows")
            stamp = (commit_id, now_us)
            events_file = _write_beside(self._events, self._events_format, "events", window.events, stamp)
            self._on_step("1.events")
            letters_file = _write_if_there(self._letters, "letters", window.letters, stamp)
            self._on_step("1.letters")
            flags_file = _write_if_there(self._flags, "flags", window.flags, stamp)
            tracker_file = self._write_tracker(window, tracker_at, commit_id)
            self._on_step("1.tracker")
            self._sync_folders([*(f.file_path for f in files), events_file, letters_file, flags_file, tracker_file])
        self._on_step("1.fsync")
        return Staged(
            window=replace(window, letters=None),  # they are in their file, and a window of nothing else is as large as its records
            commit_id=commit_id,
            written_at_us=now_us,
            files=tuple(files),
            events_file=events_file,
            tracker_file=tracker_file,
            tracker_at=tracker_at,
            letters_file=letters_file,
            columns=form.columns,
            flags_file=flags_file,
            written_as=form.written_as,
        )

    def write_again(self, staged: Staged, table: Table) -> Staged:
        """The same window with its rows in new files, under the field ids that `table` gives them now; raises as `write` does.

        It keeps its commit id: it is still one window, whichever of its files the table turns out to hold.
        """
        with translated("write a window's files", self._rows.location()):
            form = self._form_for(staged.window.rows, table)
            files = self._write_rows(form, staged.window.rows, str(uuid4()))
            self._sync_folders([f.file_path for f in files])
        return replace(staged, files=tuple(files), columns=form.columns, written_as=form.written_as)

    def _form_for(self, rows: pa.Table, table: Table) -> ParquetFormat:
        """How files of these rows are written; built once for each schema of the table."""
        columns = more_columns(rows.schema, self._declaration.schema)
        key = (table.metadata.current_schema_id, columns)
        if key not in self._rows_formats:
            self._rows_formats[key] = ParquetFormat(table, self._declaration, columns=columns)
        return self._rows_formats[key]

    def _write_rows(self, form: ParquetFormat, rows: pa.Table, name: str) -> list[DataFile]:
        files = []
        for number, part in enumerate(form.slices(rows)):
            folder = f"{data_folder(self._rows)}/{partition_path(self._declaration, part.partition)}"
            files.append(form.write(self._rows.io, f"{folder}{number:05}-{name}.parquet", part))
        return files

    def _write_tracker(self, window: Window, tracker_at: Mapping[TopicPartition, int], commit_id: str) -> str | None:
        if not window.tracker or not tracker_at:
            return None
        location = f"{self._rows.location()}/tracker/{commit_id}.tracker"
        states = {tp: (at, window.tracker[tp]) for tp, at in tracker_at.items()}
        write_bytes(self._rows.io, location, pack_tracker(states))
        return location

    def _sync_folders(self, locations: list[str | None]) -> None:
        if not self._is_synced:
            return
        paths = [local_path(location) for location in locations if location is not None]
        for folder in {path.parent for path in paths if path is not None}:
            sync_folder(folder)

    def __repr__(self) -> str:
        return f"WindowWriter({name_of(self._rows)})"


def _write_if_there(place: tuple[Table, ParquetFormat] | None, prefix: str, rows: pa.Table | None, stamp: tuple[str, int]) -> str | None:
    return None if place is None or rows is None else _write_beside(*place, prefix, rows, stamp)


def _write_beside(table: Table, form: ParquetFormat, prefix: str, rows: pa.Table, stamp: tuple[str, int]) -> str | None:
    """A file for another table's outbox, stamped with the commit that brings it; None if there is nothing to write."""
    if not rows.num_rows:
        return None
    for field, value in zip(COMMIT_FIELDS, stamp, strict=True):
        rows = rows.append_column(field, pa.array([value] * rows.num_rows, field.type))
    location = f"{data_folder(table)}/{prefix}-{stamp[0]}.parquet"
    form.write(table.io, location, form.whole(rows))
    return location


def data_folder(table: Table) -> str:
    """Where a table's data files lie."""
    return table.location_provider().data_path


def write_bytes(io: FileIO, location: str, data: bytes) -> None:
    """Write a small file whole."""
    with io.new_output(location).create(overwrite=True) as stream:
        stream.write(data)


def read_bytes(io: FileIO, location: str) -> bytes:
    """Read a small file whole."""
    with io.new_input(location).open() as stream:
        return stream.read()
