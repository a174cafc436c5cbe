"""The commit protocol (design §9): a window becomes one snapshot, once, whatever crashes, races or lies.

    1  files of the window, written and synced            writer.py
    2  load the head, compare its vector with the window's start: the fence
    3  one snapshot with files, vector, ledger and commit id, required to follow exactly that head
    4  on any exception look before acting: an ancestor of the head has our commit id? landed.
       Else the vector is at the window's start? not landed, back to 2 with the same files. Else: fenced
    5  gap events of landed snapshots go to the gaps table   outbox.py

Nothing is deleted here. Until step 3 the files are orphans, after it they are the table's. Before step 2 a turn is asked for, and given
back after step 4 (turn.py): writers that wait for each other lose no attempts. No step relies on it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from uuid import uuid4

import pyarrow as pa
import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2stream import metrics
from k2stream.clock import Clock, Deadline
from k2stream.errors import CommitUnknown, Fenced, K2Error, LakeError, Outraced
from k2stream.lake.append import Prepared, commit, prepare_append
from k2stream.lake.evolution import require_same_ids
from k2stream.lake.head import Head, head_of, name_of
from k2stream.lake.offsets import Entry, Stale, Vector, advanced, stale_partitions
from k2stream.lake.outcome import Outcome, kind_of, outcome_of
from k2stream.lake.overwrite import prepare_overwrite
from k2stream.lake.pauses import Pauses
from k2stream.lake.summary import COMMIT_ID, EVENTS_FILE, FLAGS_FILE, KIND, LETTERS_FILE, TRACKER_FILE, WORKER_ID, Carried
from k2stream.lake.trouble import Conflict, sentence, translated, without_password
from k2stream.lake.turn import Turn, no_turn
from k2stream.lake.writer import Staged
from k2stream.records import TopicPartition

log = structlog.get_logger(__name__)


Change = Callable[[Head], "Addition | None"]
"""What to append on a head; None if there is nothing to do there. Raises Fenced if the head forbids it."""


class Addition:
    """What one snapshot adds: files, and what its summary carries and says; an overwrite also takes files out."""

    __slots__ = ("carried", "columns", "drops", "files", "says")

    def __init__(
        self,
        carried: Carried,
        *,
        files: Sequence[DataFile] = (),
        drops: Collection[str] = (),
        says: Mapping[str, str] | None = None,
        columns: Sequence[pa.Field] = (),
    ) -> None:
        """`drops` are locations of data files that must be live on the head; `columns` are what the files hold beyond the declaration."""
        self.carried, self.files, self.drops, self.says, self.columns = carried, files, drops, says or {}, columns


@dataclass(frozen=True, slots=True)
class Failed:
    """One attempt that the catalog did not say yes to."""

    cause: Exception
    outcome: Outcome
    """What the exception tells; the look decides."""

    @property
    def is_conflict(self) -> bool:
        """True if another writer was faster: the new head is there already."""
        return isinstance(self.cause, Conflict)


class Committer:
    """Commits to one table; the same rules for windows, starts, adoptions and the outbox."""

    def __init__(
        self,
        catalog: Catalog,
        name: tuple[str, str],
        *,
        worker_id: str,
        on_step: Callable[[str], None],
        step: str = "3",
        read_head: Callable[[Table], Head] = head_of,
    ) -> None:
        """`step` is the number that `on_step` hears: 3 for rows, 5 for the outbox."""
        self.turn_of: Turn = no_turn
        self.catalog, self._worker_id = catalog, worker_id
        self.name = name
        """Namespace and name in the catalog."""
        self._on_step, self._step, self._read_head = on_step, step, read_head
        self.table: Table | None = None
        """As last seen, by a look or by a commit."""
        self.commits = 0
        """Snapshots that landed, those found by a look included."""
        self.conflicts = 0
        """Attempts that another writer's commit was faster than."""
        self.unknown_outcomes = 0
        """Attempts whose answer left it open whether they landed."""
        for count in (metrics.COMMIT_CONFLICTS, metrics.COMMITS_UNKNOWN):
            count.labels(name[1])  # at nothing from the start: a counter born with its first event hides it

    def as_json(self) -> dict[str, int]:
        """For `/state`."""
        return {"commits": self.commits, "conflicts": self.conflicts, "unknown_outcomes": self.unknown_outcomes}

    def load(self) -> Table:
        """The table as it is now; raises LakeError if the catalog does not say."""
        with translated("read the table", ".".join(self.name)):
            self.table = self.catalog.load_table(self.name)
        return self.table

    def head(self) -> Head:
        """The head of the table as last seen; raises VectorMissing."""
        return self._read_head(self.table if self.table is not None else self.load())

    def apply(self, change: Change, *, commit_id: str, deadline: Deadline) -> Head:
        """Steps 2 to 4 for one change; the head that holds it.

        Raises Fenced, VectorMissing, CommitUnknown if the deadline passed before the catalog answered a look, Outraced if
        other writers were faster until then, and LakeError with the cause if it is known that the change did not land.
        """
        pauses, failed = Pauses(deadline), None
        while True:
            with self.turn(deadline):
                found = self._look_and_attempt(change, commit_id, deadline, failed)
            if isinstance(found, Head):
                return found
            failed = found or failed
            if found is not None and found.is_conflict:
                pauses.after_conflict()
            elif found is None or found.outcome is not Outcome.COMMITTED:  # else the look will find it
                pauses.after_trouble()

    def turn(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Entered before the head is read and left when the catalog has answered; see turn.py."""
        return self.turn_of(self.name[1], deadline)

    def _look_and_attempt(self, change: Change, commit_id: str, deadline: Deadline, failed: Failed | None) -> Head | Failed | None:
        """Steps 2 to 4 once: the head that holds the change, what failed, or None if the head could not be read."""
        try:
            head = self._read_head(table := self.load())  # Step 2, and the look of step 4.
        except LakeError as exc:
            if not exc.is_retriable:
                raise
            self._give_up(deadline, failed, look=exc)
            return None
        if commit_id in head.commit_ids:
            self.commits += 1
            return head
        if failed is not None:
            self._give_up(deadline, failed, look=None)
        addition = change(head)
        if addition is None:
            return head
        found = self._attempt(table, head, addition, commit_id)
        self.commits += isinstance(found, Head)
        return found

    def _attempt(self, table: Table, head: Head, addition: Addition, commit_id: str) -> Head | Failed:
        """Step 3 once: the new head, or the exception and what it says of the commit."""
        says = {**addition.carried.properties(), **addition.says, COMMIT_ID: commit_id, WORKER_ID: self._worker_id}
        self._on_step("2.head" if self._step == "3" else f"{self._step}.head")
        try:
            prepared = _prepared(table, addition, says)
        except Exception as exc:
            return Failed(exc, Outcome.NOT_COMMITTED)
        self._on_step(f"{self._step}.before")
        try:
            self.table = commit(self.catalog, prepared)
        except Exception as exc:
            return self._failed(exc, commit_id)
        self._on_step(f"{self._step}.after")
        landed = self._read_head(self.table)
        log.debug("commit.landed", table=name_of(table), commit_id=commit_id, snapshot_id=landed.snapshot_id, on=head.snapshot_id)
        return landed

    def _failed(self, exc: Exception, commit_id: str) -> Failed:
        """The exception of a commit, sorted, counted and logged."""
        failed = Failed(exc, outcome_of(exc, kind_of(self.catalog)))
        self.conflicts += failed.is_conflict
        self.unknown_outcomes += failed.outcome is Outcome.UNKNOWN
        metrics.COMMIT_CONFLICTS.labels(self.name[1]).inc(failed.is_conflict)
        metrics.COMMITS_UNKNOWN.labels(self.name[1]).inc(failed.outcome is Outcome.UNKNOWN)
        say = log.info if failed.is_conflict else log.warning
        event = "commit.conflict" if failed.is_conflict else "commit.undecided" if failed.outcome is Outcome.UNKNOWN else "commit.failed"
        cause = without_password(f"{type(exc).__name__}: {exc}")
        say(event, table=".".join(self.name), commit_id=commit_id, outcome=failed.outcome.value, cause=cause)
        return failed

    def _give_up(self, deadline: Deadline, failed: Failed | None, *, look: LakeError | None) -> None:
        """Raise if the budget is spent: known and negative after a look or by the catalog's own word, else unknown."""
        if not deadline.is_over():
            return
        if failed is None:
            if look is not None:
                raise look
            return
        cause, says = failed.cause, sentence(failed.cause, "commit", ".".join(self.name))
        if look is not None and failed.outcome is not Outcome.NOT_COMMITTED:
            raise CommitUnknown(f"{says} Whether it landed could not be seen either: {look}") from cause
        if failed.is_conflict:
            where = ".".join(self.name)
            raise Outraced(f"Other writers of {where} were faster until the time was over; longer windows (K2_WINDOW_MS) make fewer commits.") from cause
        raise cause if isinstance(cause, K2Error) else LakeError(says) from cause


def _prepared(table: Table, addition: Addition, says: Mapping[str, str]) -> Prepared:
    if addition.drops:
        return prepare_overwrite(table, addition.files, addition.drops, says, commit_id=str(uuid4()), columns=addition.columns)
    return prepare_append(table, addition.files, says, commit_id=str(uuid4()), columns=addition.columns)


class WindowCommit:
    """Commits staged windows to a table of rows; a window lands once or not at all."""

    def __init__(self, committer: Committer, *, clock: Clock, stale_after_us: int, on_step: Callable[[str], None]) -> None:
        self._committer, self._clock, self._stale_after_us, self._on_step = committer, clock, stale_after_us, on_step

    def commit(self, staged: Staged, deadline: Deadline) -> Head:
        """Steps 2 to 4. Raises Fenced if another writer moved the window's partitions, ColumnsMoved if one took the ids of its
        new columns; see Committer.apply."""
        return self.apply(staged, lambda head: self._on(head, staged), deadline)

    def _on(self, head: Head, staged: Staged) -> Addition:
        addition = window_on(head, staged)
        if staged.written_as is not None:
            require_same_ids(self._committer.table or self._committer.load(), staged.columns, staged.written_as)
        return addition

    def apply(self, staged: Staged, change: Change, deadline: Deadline) -> Head:
        """The same for a window whose addition is more than its files: `change` begins with `window_on`."""
        self._refuse_old(staged)
        head = self._committer.apply(change, commit_id=staged.commit_id, deadline=deadline)
        self._on_step("4.decided")
        return head

    def register(self, starts: Mapping[TopicPartition, int], deadline: Deadline) -> Head:
        """Give partitions without an entry their start, in an empty snapshot; entries that exist stay as they are."""
        return self._committer.apply(lambda head: starts_on(head, starts), commit_id=str(uuid4()), deadline=deadline)

    def _refuse_old(self, staged: Staged) -> None:
        """Upkeep takes old files without a snapshot for orphans, so a window that waited too long is read again."""
        age_us = self._clock.now_us() - staged.written_at_us
        if age_us > self._stale_after_us:
            raise Fenced(
                f"Window {staged.window.number} was written {age_us // 1_000_000} s ago; after {self._stale_after_us // 1_000_000} s its files "
                "may be taken for orphans (K2_ORPHAN_AGE_MS). It is dropped and its records are read again."
            )


def window_on(head: Head, staged: Staged) -> Addition:
    """The addition that a window is on `head`; raises Fenced if the head's vector is not at the window's start."""
    window = staged.window
    stale = stale_partitions(head.vector, window.spans)
    if stale:
        raise Fenced(fenced_sentence(stale))
    vector = _with_tracker(advanced(head.vector, window.spans, window.deltas, window.marks), staged)
    marks = [w for w in (head.watermark_us, window.watermark_us) if w is not None]
    says = {KIND: "window"}
    if staged.events_file is not None:
        says[EVENTS_FILE] = staged.events_file
    if staged.letters_file is not None:
        says[LETTERS_FILE] = staged.letters_file
    if staged.flags_file is not None:
        says[FLAGS_FILE] = staged.flags_file
    if staged.tracker_file is not None:
        says[TRACKER_FILE] = staged.tracker_file
    return Addition(replace(head.carried, vector=vector, watermark_us=max(marks, default=None)), files=staged.files, says=says, columns=staged.columns)


def _with_tracker(vector: Vector, staged: Staged) -> Vector:
    """Name the window's tracker file for each partition whose state in it stands where the vector does."""
    fresh = {tp for tp, at in staged.tracker_at.items() if tp in vector and vector[tp].next == at}
    return {tp: replace(e, tracker_file=staged.tracker_file) if tp in fresh else e for tp, e in vector.items()}


def starts_on(head: Head, starts: Mapping[TopicPartition, int]) -> Addition | None:
    """The addition that gives new partitions their entries; None if all have one."""
    new = {TopicPartition(*tp): Entry(start, start) for tp, start in starts.items() if tp not in head.vector}
    return Addition(replace(head.carried, vector={**head.vector, **new}), says={KIND: "start"}) if new else None


def fenced_sentence(stale: Sequence[Stale]) -> str:
    """What the fence found, for the first few partitions."""
    found = ", ".join(f"{s.tp.topic}/{s.tp.partition} expected {s.expected} committed {'nothing' if s.committed is None else s.committed}" for s in stale[:3])
    more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
    return f"The table is not where this window starts: {found}{more}. Another worker committed them, or the table was rolled back; they are read again."
