"""Old snapshots out of the metadata, and the files that only they named off the disk: commit time stays flat.

Live is what any manifest names and what any kept summary names. A snapshot goes only after its gap events were taken,
and the head always keeps a vector: PyIceberg's expiry cuts the parent chain, so a foreign head is covered first by an
empty snapshot that carries on what its ancestors said. Files of rows are never deleted here, and files of gap events only
if the gaps table never took them (after a rollback the same events lie in a second file).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

import structlog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from k2stream.clock import Deadline
from k2stream.lake.append import commit, prepare_expiry
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.head import Head, name_of, summary_of
from k2stream.lake.pins import pin_name
from k2stream.lake.summary import KIND, OUTBOX_FILES, carried_by
from k2stream.lake.trouble import translated

log = structlog.get_logger(__name__)

IsTaken = Callable[[Table, Snapshot], bool]
"""True if the outbox has what the snapshot's summary names."""


Referenced = Callable[[set[str]], set[str]]
"""Which of these files another table still needs: that of gap events, or that of dead letters."""

FEWEST = 3
"""So many stay however old they are: a head without history has nothing to roll back to."""
MANIFEST_NUMBER = re.compile(r"-m(\d+)\.avro$")


class Expiry:
    """Keeps one table at no more than so many snapshots; several workers may try at once, one wins."""

    def __init__(self, committer: Committer, *, kept: int, is_taken: IsTaken, referenced: Referenced = set, before_ms: int = 0) -> None:
        """Past `kept` snapshots a fifth of them go at once, so that few commits pay for it; those made before `before_ms` go anyway."""
        self._committer, self._kept, self._is_taken, self._referenced, self._before_ms = committer, kept, is_taken, referenced, before_ms
        self._manifests: dict[str, frozenset[str]] = {}

    def is_due(self) -> bool:
        """True if the table as last seen has more snapshots than it should."""
        table = self._committer.table
        return table is not None and len(table.metadata.snapshots) > self._kept

    def run(self, deadline: Deadline) -> int:
        """Expire what may go and delete what only that named; how many snapshots went.

        Raises LakeError if the catalog or the disk refuses; then some files may be left, and are orphans.
        """
        if not self.going(self._committer.load()):
            return 0
        if not self._committer.head().has_own_vector:
            self._committer.apply(carry_on, commit_id=str(uuid4()), deadline=deadline)
        with self._committer.turn(deadline):
            going, after = self._commit()
        if after is None:
            return 0
        with translated("expire snapshots", name_of(after)):
            files = self._files_only_of(going, after)
        for location in files:
            with suppress(OSError):  # what cannot be deleted now is an orphan, which upkeep finds
                after.io.delete(location)
        log.info("snapshots.expired", table=name_of(after), snapshots=len(going), files=len(files))
        return len(going)

    def going(self, table: Table) -> list[Snapshot]:
        """Snapshots of `table`, as loaded, that may go now."""
        snapshots = table.metadata.snapshots
        keep = self._kept - self._kept // 5 if len(snapshots) > self._kept else len(snapshots)
        old = sum(s.timestamp_ms < self._before_ms for s in snapshots)
        return expirable(table, keep=max(FEWEST, min(keep, len(snapshots) - old)), is_taken=self._is_taken)

    def _commit(self) -> tuple[list[Snapshot], Table | None]:
        """Take out what may go: which snapshots, and the table without them; None if there is nothing to do, as for all but the first who come."""
        table = self._committer.load()
        going = self.going(table)
        if not going or not self._committer.head().has_own_vector:
            return [], None
        with translated("expire snapshots", name_of(table)):
            ids = [s.snapshot_id for s in going]
            after = commit(self._committer.catalog, prepare_expiry(table, ids, unless_named=[pin_name(id) for id in ids]))
        self._committer.table = after
        return going, after

    def _files_only_of(self, gone: Sequence[Snapshot], after: Table) -> list[str]:
        """Manifest lists, manifests, tracker and events files that nothing names any more."""
        kept = self._named_by(after.metadata.snapshots, after)
        files = self._named_by(gone, after) - kept
        files -= self._referenced(outbox_files(gone) & files)
        lists = {s.manifest_list for s in (*gone, *after.metadata.snapshots)}
        self._manifests = {name: found for name, found in self._manifests.items() if name in lists - files}
        return sorted(files)

    def _named_by(self, snapshots: Sequence[Snapshot], table: Table) -> set[str]:
        names: set[str] = set()
        for snapshot in snapshots:
            names |= {snapshot.manifest_list, *self._manifests_of(snapshot, table), *tracker_files(snapshot)}
        return names | outbox_files(snapshots)

    def _manifests_of(self, snapshot: Snapshot, table: Table) -> frozenset[str]:
        if snapshot.manifest_list not in self._manifests:
            manifests = snapshot.manifests(table.io)
            merged = (name for m in manifests if m.added_snapshot_id == snapshot.snapshot_id for name in _merged_into(m.manifest_path))
            self._manifests[snapshot.manifest_list] = frozenset([*(m.manifest_path for m in manifests), *merged])
        return self._manifests[snapshot.manifest_list]


def expirable(table: Table, *, keep: int, is_taken: IsTaken) -> list[Snapshot]:
    """The oldest snapshots beyond the newest `keep`: none with a name, and none above one whose events wait.

    A snapshot whose events wait must stay reachable, so of the head's own history only what is older may go.
    """
    named = {ref.snapshot_id for ref in table.metadata.refs.values()}
    by_age = sorted(table.metadata.snapshots, key=lambda s: s.sequence_number or 0)
    chain = {s.snapshot_id for s in ancestors_of(table.current_snapshot(), table.metadata)}
    waiting = [s.sequence_number or 0 for s in by_age if s.snapshot_id in chain and outbox_files([s]) and not is_taken(table, s)]
    first_waiting = min(waiting, default=None)
    old = by_age[: max(0, len(by_age) - keep)]
    return [s for s in old if s.snapshot_id not in named and (first_waiting is None or (s.sequence_number or 0) < first_waiting)]


def carry_on(head: Head) -> Addition | None:
    """An empty snapshot that carries on what a foreign head does not; None if the head carries it."""
    return None if head.has_own_vector else Addition(head.carried, says={KIND: "expiry"})


def _merged_into(manifest: str) -> list[str]:
    """Manifests that PyIceberg wrote, and left, on its way to one that it merged in the same commit."""
    number = MANIFEST_NUMBER.search(manifest)
    if number is None:
        return []
    return [f"{manifest[: number.start()]}-m{earlier}.avro" for earlier in range(int(number[1]))]


def outbox_files(snapshots: Iterable[Snapshot]) -> set[str]:
    """Files that these snapshots name beside their rows."""
    return {summary_of(s)[key] for s in snapshots for key in OUTBOX_FILES if key in summary_of(s)}


def tracker_files(snapshot: Snapshot) -> set[str]:
    """Tracker files that a snapshot carries on."""
    carried = carried_by(summary_of(snapshot))
    return {e.tracker_file for e in carried.vector.values() if e.tracker_file is not None} if carried else set()
