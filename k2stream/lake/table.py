"""The exactly-once sink of one data type: a table of rows, those of gaps, dead letters and flags beside it, and the rules between them."""

import os
import socket
from collections.abc import Callable, Mapping

import pyarrow as pa
import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2stream.clock import Clock, Deadline, SystemClock
from k2stream.errors import K2Error
from k2stream.lake.adopt import adopt
from k2stream.lake.catalog import open_catalog, open_table
from k2stream.lake.commit import Committer, WindowCommit
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.declared import as_made
from k2stream.lake.evolution import ColumnsMoved, arrow_columns
from k2stream.lake.expiry import Expiry
from k2stream.lake.files import FileLists
from k2stream.lake.group import claimed
from k2stream.lake.head import Head, head_of, head_or_start, summary_of
from k2stream.lake.outbox import EVENTS, FLAGS, LETTERS, Outbox
from k2stream.lake.parquet import ParquetFormat
from k2stream.lake.reader import TableReader
from k2stream.lake.summary import OUTBOX_FILES
from k2stream.lake.taken import Taken
from k2stream.lake.turn import Turn
from k2stream.lake.window import Window
from k2stream.lake.writer import Staged, WindowWriter, data_folder
from k2stream.records import TopicPartition
from k2stream.settings import Settings

log = structlog.get_logger(__name__)

ORPHAN_SHARE = 4
"""A window older than this part of the orphan age is not committed: its files may be taken for orphans."""


def _taker(
    catalog: Catalog, settings: Settings, beside: tuple[Table, TableDeclaration], *, worker_id: str, on_step: Callable[[str], None]
) -> Committer:
    """Who commits to a table that takes what windows name."""
    name = (settings.namespace, beside[1].name)
    committer = Committer(catalog, name, worker_id=worker_id, on_step=on_step, step="5", read_head=head_or_start)
    committer.table = beside[0]
    return committer


def no_step(_: str) -> None:
    """Nobody listens to the steps."""


class RowsLake(TableReader):
    """Takes windows, keeps the vector, hands gap events on; every call blocks.

    `write`, `commit`, `take_outbox` and `register` are for one thread at a time, the others for any.
    """

    @classmethod
    def open(
        cls,
        settings: Settings,
        rows: TableDeclaration,
        events: TableDeclaration,
        letters: TableDeclaration | None = None,
        flags: TableDeclaration | None = None,
        *,
        clock: Clock | None = None,
        on_step: Callable[[str], None] = no_step,
        catalog: Catalog | None = None,
        worker_id: str = "",
    ) -> "RowsLake":
        """Open the tables, making what is missing; raises LakeError with one plain sentence if that cannot be.

        `on_step` hears the name of each protocol step as it is passed; crash tests die there.
        """
        catalog = catalog or open_catalog(settings)
        first, second = ((open_table(catalog, settings, d), d) for d in (rows, events))
        beside = [None if d is None else (table := open_table(catalog, settings, d), as_made(table, d)) for d in (letters, flags)]
        return cls(catalog, settings, first, second, *beside, clock=clock or SystemClock(), on_step=on_step, worker_id=worker_id)

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        rows: tuple[Table, TableDeclaration],
        events: tuple[Table, TableDeclaration],
        letters: tuple[Table, TableDeclaration] | None = None,
        flags: tuple[Table, TableDeclaration] | None = None,
        *,
        clock: Clock,
        on_step: Callable[[str], None],
        worker_id: str,
    ) -> None:
        super().__init__(catalog, settings, rows[1].name)
        worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}"
        self._clock, self._on_step = clock, on_step
        self._columns: tuple[Schema | None, pa.Schema] = (None, pa.schema([]))
        self._group = settings.app_id
        self._rows = Committer(catalog, self.name, worker_id=worker_id, on_step=on_step, read_head=lambda table: self._claimed(head_of(table)))
        self._rows.table = rows[0]
        parcels = [(beside, parcel) for beside, parcel in ((events, EVENTS), (letters, LETTERS), (flags, FLAGS)) if beside is not None]
        self._outboxes = [
            Outbox(_taker(catalog, settings, beside, worker_id=worker_id, on_step=on_step), ParquetFormat(*beside), rows[1].name, parcel)
            for beside, parcel in parcels
        ]
        self._handed_on = {parcel.named_by for _, parcel in parcels}
        self._folders = tuple(f"{data_folder(beside[0])}/" for beside, _ in parcels)
        self._others_taken = Taken(catalog, settings)
        self._writer = WindowWriter(rows, events, letters, flags, clock=clock, on_step=on_step, is_synced=settings.fsync)
        stale_after_us = settings.orphan_age_ms * 1000 // ORPHAN_SHARE
        self._windows = WindowCommit(self._rows, clock=clock, stale_after_us=stale_after_us, on_step=on_step)
        self._expiries = (
            Expiry(
                self._rows,
                kept=settings.snapshots_kept,
                is_taken=self._is_taken,
                referenced=self._referenced,
            ),
            *(Expiry(outbox.committer, kept=settings.snapshots_kept, is_taken=lambda _t, _s: True) for outbox in self._outboxes),
        )

    def take_turns(self, turn: Turn) -> None:
        """Ask for a turn before each commit from now on."""
        for committer in self.committers().values():
            committer.turn_of = turn

    def head(self) -> Head:
        """The head as the catalog has it now; raises SettingsError if the table belongs to another consumer group."""
        return self._claimed(super().head())

    def _claimed(self, head: Head) -> Head:
        return claimed(head, ".".join(self.name), self._group)

    def register(self, starts: Mapping[TopicPartition, int], deadline: Deadline) -> Head:
        """Commit the starts of partitions that have no entry yet, so that the fence has a value (design §13.6)."""
        return self._windows.register(starts, deadline)

    def write(self, window: Window) -> Staged:
        """Step 1: the window's files, on the disk. Raises Fenced if the table cannot take a column of its rows."""
        return self._writer.write(window, self._rows.table)

    def columns(self) -> pa.Schema:
        """The table's columns as last seen by a look or a commit of this worker; the same object until they change. Asks nobody."""
        schema = (self._rows.table or self._rows.load()).schema()
        if self._columns[0] is not schema:
            columns = arrow_columns(schema)
            self._columns = (schema, self._columns[1] if columns.equals(self._columns[1]) else columns)
        return self._columns[1]

    def commit(self, staged: Staged, deadline: Deadline) -> Head:
        """Steps 2 to 4: one snapshot, once. Raises Fenced, CommitUnknown, or LakeError if it is known not to have landed."""
        columns = self.columns()
        head = self._commit(staged, deadline)
        self._seen = self._rows.table
        if self.columns() is not columns:
            log.info("table.columns_changed", table=".".join(self.name), columns=sorted(set(self.columns().names) - set(columns.names)))
        log.info(
            "window.committed",
            table=".".join(self.name),
            window=staged.window.number,
            commit_id=staged.commit_id,
            snapshot_id=head.snapshot_id,
            rows=staged.window.rows.num_rows,
            events=staged.window.events.num_rows,
            partitions=len(staged.window.spans),
        )
        return head

    def _commit(self, staged: Staged, deadline: Deadline) -> Head:
        """If others were faster to add columns, the window's rows are written again with other field ids."""
        while True:
            try:
                return self._windows.commit(staged, deadline)
            except ColumnsMoved:
                if deadline.is_over():
                    raise
                staged = self._writer.write_again(staged, self._rows.table or self._rows.load())

    def take_outbox(self, deadline: Deadline) -> int:
        """Step 5: hand gap events, dead letters and flags on to their tables, then let go of snapshots beyond those to be kept.

        Returns how many rows were appended there. Raises LakeError; whoever commits next tries again.
        """
        source = self._rows.table or self._rows.load()
        appended = sum(outbox.take(source, deadline) for outbox in self._outboxes)
        for expiry in self._expiries:
            if expiry.is_due() and not deadline.is_over():
                self._expire(expiry, deadline)
        return appended

    def _is_taken(self, source: Table, snapshot: Snapshot) -> bool:
        """True if nothing that `snapshot` names waits: neither for an outbox of ours nor for a table that this worker hands nothing on to."""
        if any(outbox.owes(source, snapshot) for outbox in self._outboxes):
            return False
        is_ours = all(key in self._handed_on for key in OUTBOX_FILES if key in summary_of(snapshot))
        return is_ours or self._others_taken(source, snapshot)

    def _referenced(self, locations: set[str]) -> set[str]:
        """Which of these files a taking table holds, or may hold: what lies in a folder that no outbox of ours knows is not ours to delete."""
        foreign = {location for location in locations if not location.startswith(self._folders)}
        return foreign.union(*(outbox.referenced(locations) for outbox in self._outboxes))

    def _expire(self, expiry: Expiry, deadline: Deadline) -> None:
        """Upkeep never stops a worker: what did not expire now does so after a later commit."""
        self._others_taken = Taken(self.catalog, self._settings)
        try:
            expiry.run(deadline)
        except K2Error as exc:
            log.warning("expiry.postponed", cause=str(exc))

    def committers(self) -> Mapping[str, Committer]:
        """By table: who commits to it, with its counts of commits, conflicts and unknown outcomes since this worker opened it."""
        return {committer.name[1]: committer for committer in (self._rows, *(outbox.committer for outbox in self._outboxes))}

    def adopt(self, deadline: Deadline) -> Head:
        """Make a vector for a table that lost its own (design §13.13); raises LakeError if it has one."""
        committer = Committer(self.catalog, self.name, worker_id="adopt", on_step=self._on_step, read_head=head_or_start)
        lists = FileLists(lambda _: committer.table or committer.load())
        return adopt(committer, lists, deadline)
