"""Step 5: gap events and dead letters that landed with their rows are appended to their own tables, each once.

A snapshot of the source names the file of its gap events (and that of its letters), which lies in the gaps table's data folder
already. Taking it is one append with the head required and with `applied-through` in its summary, so of two takers one wins and the
other sees it. Sequence numbers only ever grow, also over a rollback: what is above `applied-through` was not taken.

An append takes so many files at most, the oldest: what an outage left behind is taken in several, one after the other while there is time, and
`applied-through` names the last snapshot whose file is in.

A file that holds several days of a table that is cut by day is copied, a file a day, in the same append: all of them or none.

After a rollback of the source the same records are read again and give the same events in new files. Events below the
offsets that were ever taken are therefore looked up by id, those of all files of a taking at once, and those that their table holds are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog
from numpy.typing import NDArray
from pyiceberg.io import InputStream
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from k2stream.clock import Deadline
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.file_io import sync_folders_of
from k2stream.lake.files import FileLists
from k2stream.lake.head import Head, head_at, head_of, summary_of
from k2stream.lake.offsets import Entry, Vector, pack, unpack
from k2stream.lake.parquet import DAY_US, ParquetFormat, Partition
from k2stream.lake.summary import APPLIED_THROUGH, EVENTS_FILE, FLAGS_FILE, KIND, LETTERS_FILE, TAKEN_BELOW
from k2stream.lake.trouble import translated
from k2stream.lake.writer import data_folder
from k2stream.records import TopicPartition

TAKEN_AT_ONCE = 64
"""Files of one append. A commit of the source names one, so a backlog shrinks sixty times as fast as it grew, and no append is large."""

log = structlog.get_logger(__name__)

HeldIds = Callable[[pa.Array], pa.Array]
"""Which of these ids the taking table holds."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What an outbox hands on."""

    named_by: str
    """Entry of a summary that names its file."""
    id_column: str
    """Column that names a row of it: no id is taken twice."""
    prefix: str
    """Of its files' names."""
    words: str
    """For people."""


EVENTS = Parcel(EVENTS_FILE, "event_id", "events", "gap events")
"""The id is a hash of stream key, kind, range and origin."""
LETTERS = Parcel(LETTERS_FILE, "origin", "letters", "dead letters")
FLAGS = Parcel(FLAGS_FILE, "origin", "flags", "flags")


@dataclass(frozen=True, slots=True)
class Applied:
    """How far a source's files have been taken."""

    table_uuid: str
    sequence_number: int
    below: Vector | None
    """`next` of each partition at the furthest snapshot ever taken; None: not known, every event is looked up."""

    def has_taken(self, source: Table, snapshot: Snapshot) -> bool:
        """True if nothing of `snapshot` is left to take."""
        is_older = (snapshot.sequence_number or 0) <= self.sequence_number
        return is_older and self.table_uuid == str(source.metadata.table_uuid)


NOTHING = Applied("", -1, None)


def applied_of(head: Head, source: str) -> Applied:
    """What the taking table's head says of a source table."""
    outbox = head.carried.outbox
    through, below = outbox.get(APPLIED_THROUGH + source), outbox.get(TAKEN_BELOW + source)
    if through is None:
        return NOTHING
    table_uuid, _, sequence_number = through.rpartition(":")
    return Applied(table_uuid, int(sequence_number), None if below is None else unpack(below))


def owed(source: Table, applied: Applied, parcel: Parcel) -> list[Snapshot]:
    """Snapshots of the source's kept history that name a file which nobody has taken, oldest first."""
    chain = [s for s in ancestors_of(source.current_snapshot(), source.metadata) if parcel.named_by in summary_of(s)]
    return [s for s in reversed(chain) if not applied.has_taken(source, s)]


def named_after(source: Table, applied: Applied, parcel: Parcel = EVENTS) -> list[str]:
    """Files that the source's kept history names and nobody has taken, oldest first."""
    return [summary_of(s)[parcel.named_by] for s in owed(source, applied, parcel)]


class Outbox:
    """Takes the gap events, or the letters, of one source table; any number of workers may do so at once."""

    def __init__(self, committer: Committer, form: ParquetFormat, source: str, parcel: Parcel = EVENTS) -> None:
        """`committer` and `form` are the taking table's, `source` names the table whose files are taken."""
        self.committer, self._form, self._source, self._parcel = committer, form, source, parcel
        self._lists = FileLists(lambda _: self._table)
        self.applied = NOTHING
        """As this worker last saw it; it may have grown since."""

    @property
    def _table(self) -> Table:
        assert self.committer.table is not None
        return self.committer.table

    def owes(self, source: Table, snapshot: Snapshot) -> bool:
        """True if `snapshot` names a file that was not taken yet, as far as this worker has seen."""
        return self._parcel.named_by in summary_of(snapshot) and not self.applied.has_taken(source, snapshot)

    def look(self) -> Applied:
        """How far the taking table says it has come."""
        self.committer.load()
        self.applied = applied_of(self.committer.head(), self._source)
        return self.applied

    def take(self, source: Table, deadline: Deadline) -> int:
        """Append what `source`'s kept history owes, the oldest files first; how many rows that were. Raises as Committer.apply does.

        What there is no time for waits for the next commit, and is logged.
        """
        rows = 0
        while waiting := named_after(source, self.applied, self._parcel):
            if rows and deadline.is_over():
                log.warning("outbox.behind", source=self._source, words=self._parcel.words, files=len(waiting), then="the next commit takes them on")
                break
            rows += self._take_some(source, deadline)
        return rows

    def _take_some(self, source: Table, deadline: Deadline) -> int:
        taking = _Taking(self._form, self._held_ids, source, self._source, self._parcel)
        head = self.committer.apply(lambda head: taking.on(head, self._table), commit_id=str(uuid4()), deadline=deadline)
        self.applied = applied_of(head, self._source)
        return taking.rows

    def referenced(self, locations: set[str]) -> set[str]:
        """Which of these files a kept snapshot of the taking table holds; raises LakeError."""
        folder = f"{data_folder(self._table)}/"
        wanted = {location for location in locations if location.startswith(folder)}
        held, table = set[str](), self.committer.load() if wanted else None
        newest_first = reversed(table.metadata.snapshots) if table else ()
        for snapshot in newest_first:  # the newest holds them all, but for those of a rollback or a compaction
            if held >= wanted:
                break
            held |= wanted & {file.path for file in self._lists.files(snapshot.snapshot_id)}
        return held

    def _held_ids(self, wanted: pa.Array) -> pa.Array:
        """Which of `wanted` the taking table holds; files whose bounds exclude all of them are not opened."""
        snapshot, column, ends = self._table.current_snapshot(), self._parcel.id_column, pc.min_max(wanted).as_py()
        held = [wanted.slice(0, 0)]
        for file in self._lists.files(snapshot.snapshot_id) if snapshot else []:
            if file.lower.get(column, "") > ends["max"] or file.upper.get(column, ends["min"]) < ends["min"]:
                continue
            with translated(f"look up {self._parcel.words}", file.path), self._table.io.new_input(file.path).open() as stream:
                batches = pq.ParquetFile(stream).iter_batches(columns=[column])
                held += [batch[column].filter(pc.is_in(batch[column], wanted)) for batch in batches]
        return pa.concat_arrays(held)


@dataclass(frozen=True, slots=True)
class _Named:
    """A file that is owed, as far as it is looked at before anything is taken."""

    location: str
    footer: pq.FileMetaData
    partition: Partition | None
    """That all rows lie in; None if they lie in several."""
    ids: pa.ChunkedArray | None
    """Of all rows, if one of them may have been taken before; else None."""
    doubtful: pa.Array

    def is_new(self, held: pa.Array) -> pa.Array | None:
        """Which rows are not held; None: all of them."""
        if self.ids is None or not len(held):
            return None
        is_new = pc.invert(pc.is_in(self.ids, held)).combine_chunks()
        return None if pc.all(is_new).as_py() else is_new


class _Taking:
    """One taking: what a source owes, as an addition to whatever head the taking table has by now."""

    def __init__(self, form: ParquetFormat, held_ids: HeldIds, source: Table, name: str, parcel: Parcel) -> None:
        self._form, self._held_ids, self._source, self._name, self._parcel = form, held_ids, source, name, parcel
        self._copied: dict[str, tuple[pa.Array | None, list[DataFile]]] = {}
        """By the file that was copied: which of its rows, and the copies. An attempt that is run again writes nothing twice."""
        self.rows = 0

    def on(self, head: Head, table: Table) -> Addition | None:
        """What is to be appended on `head` next; None if another worker has taken it all."""
        applied = applied_of(head, self._name)
        waiting = owed(self._source, applied, self._parcel)
        taken = waiting[:TAKEN_AT_ONCE]
        self.rows = 0
        if not taken:
            return None
        named = [self._named(summary_of(s)[self._parcel.named_by], applied.below) for s in taken]
        held = self._held(named)
        files = [file for each in named for file in self._files(each, each.is_new(held), table)]
        is_whole = len(taken) == len(waiting)
        through = head_of(self._source) if is_whole else head_at(self._source, taken[-1].snapshot_id)
        outbox = self._outbox(head, applied, through, is_whole=is_whole)
        return Addition(replace(head.carried, outbox=outbox), files=files, says={KIND: "outbox"})

    def _named(self, location: str, below: Vector | None) -> _Named:
        """Look at a file; values of rows are not read."""
        with translated(f"read {self._parcel.words}", location), self._source.io.new_input(location).open() as stream:
            footer = pq.read_metadata(stream)
            doubtful = pa.array(doubtful_rows(pq.read_table(stream, columns=["topic", "partition", "offset"]), below))
            id_column = self._parcel.id_column
            ids = pq.read_table(stream, columns=[id_column])[id_column] if doubtful.true_count else None
            return _Named(location, footer, self._partition(stream), ids, doubtful)

    def _held(self, named: Sequence[_Named]) -> pa.Array:
        """Ids of these files that the taking table holds."""
        doubted = [chunk for each in named if each.ids is not None for chunk in each.ids.filter(each.doubtful).chunks]
        return self._held_ids(pa.concat_arrays(doubted)) if doubted else pa.array([], pa.string())

    def _files(self, named: _Named, is_new: pa.Array | None, table: Table) -> list[DataFile]:
        """The data files to append for one named file: the very file, or copies, one a partition and without what is held."""
        location = named.location
        with translated(f"read {self._parcel.words}", location):
            if is_new is None and named.partition is not None:
                self.rows += named.footer.num_rows
                return [self._form.data_file(location, len(self._source.io.new_input(location)), named.footer, named.partition)]
            known, files = self._copied.get(location, (None, []))
            if not files or not (known == is_new if known is None or is_new is None else known.equals(is_new)):
                files = self._copy(location, is_new, table)
                self._copied[location] = is_new, files
            self.rows += sum(file.record_count for file in files)
            return files

    def _copy(self, location: str, is_new: pa.Array | None, table: Table) -> list[DataFile]:
        """The rows that are new, a file a partition."""
        with self._source.io.new_input(location).open() as stream:
            rows = pq.read_table(stream)
        rows = rows if is_new is None else rows.filter(is_new)
        copy = f"{data_folder(table)}/{self._parcel.prefix}-{uuid4()}"
        files = [self._form.write(table.io, f"{copy}-{number:05}.parquet", part) for number, part in enumerate(self._form.slices(rows))]
        sync_folders_of(table.io, [file.file_path for file in files])
        return files

    def _partition(self, stream: InputStream) -> Partition | None:
        """The partition that all rows of a file lie in; None if they lie in several."""
        day_of = self._form.declaration.day_of
        if day_of is None:
            return ()
        days = np.unique(pq.read_table(stream, columns=[day_of])[day_of].cast(pa.int64()).to_numpy() // DAY_US).tolist()
        return (days[0],) if len(days) == 1 else None

    def _outbox(self, head: Head, applied: Applied, through: Head, *, is_whole: bool) -> dict[str, str]:
        """Where nothing says what was taken, every event is looked up until a whole backlog was: the next files of it may be in as well."""
        place = f"{through.table_uuid}:{through.sequence_number}"
        found = {**head.carried.outbox, APPLIED_THROUGH + self._name: place}
        if applied.below is None and not is_whole:
            found.pop(TAKEN_BELOW + self._name, None)
            return found
        ends = {tp: entry.next for tp, entry in (applied.below or {}).items()}
        for tp, entry in through.vector.items():
            ends[tp] = max(entry.next, ends.get(tp, 0))
        return {**found, TAKEN_BELOW + self._name: pack({tp: Entry(0, end) for tp, end in ends.items()})}


def doubtful_rows(origins: pa.Table, below: Vector | None) -> NDArray[np.bool_]:
    """Which rows, by topic, partition and offset, may have been taken before."""
    if below is None:
        return np.ones(origins.num_rows, dtype=bool)
    doubtful = np.zeros(origins.num_rows, dtype=bool)
    partitions, offsets = origins["partition"].to_numpy(), origins["offset"].to_numpy()
    for topic in origins["topic"].unique().to_pylist():
        is_of_topic = pc.equal(origins["topic"], topic).to_numpy()
        for partition in np.unique(partitions[is_of_topic]).tolist():
            entry = below.get(TopicPartition(topic, partition))
            if entry is not None:
                doubtful |= is_of_topic & (partitions == partition) & (offsets < entry.next)
    return doubtful
