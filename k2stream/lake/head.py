"""The head of a table as one commit needs it: vector, ancestors, what is carried on."""

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from k2stream.errors import LakeError, VectorMissing
from k2stream.lake.offsets import Vector
from k2stream.lake.summary import COMMIT_ID, VECTOR, Carried, carried_by


@dataclass(frozen=True, slots=True)
class Head:
    """One snapshot of a table, as read; an empty table has no snapshot and an empty vector."""

    snapshot_id: int | None
    sequence_number: int
    table_uuid: str
    carried: Carried
    ancestors: frozenset[int]
    """Ids of the kept snapshots that this one builds on, itself included."""
    commit_ids: frozenset[str]
    """Commit ids of those."""
    has_own_vector: bool
    """False if a foreign writer made this snapshot: then what is carried comes from the nearest ancestor of ours."""

    @property
    def vector(self) -> Vector:
        return self.carried.vector

    @property
    def watermark_us(self) -> int | None:
        """Newest event time committed so far, microseconds; None before the first row."""
        return self.carried.watermark_us

    def is_ancestor(self, snapshot_id: int) -> bool:
        """True if the table at this head still builds on that snapshot."""
        return snapshot_id in self.ancestors


def head_of(table: Table) -> Head:
    """The head of `table` as loaded. Raises VectorMissing if it has history but no reachable vector."""
    return _head(table, table.current_snapshot())


def head_or_start(table: Table) -> Head:
    """The same for a table whose rows need no vector: history without one carries nothing, which is where it starts."""
    try:
        return head_of(table)
    except VectorMissing:
        return _made(table, _snapshots(table), Carried({}), has_own_vector=False)


def head_at(table: Table, snapshot_id: int) -> Head:
    """The same for a snapshot that is still kept; raises LakeError if it is not."""
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise LakeError(f"{name_of(table)} no longer keeps snapshot {snapshot_id}. Ask for a newer one, or keep more (K2_SNAPSHOTS_KEPT).")
    return _head(table, snapshot)


def _head(table: Table, snapshot: Snapshot | None) -> Head:
    if snapshot is None:
        return Head(None, 0, str(table.metadata.table_uuid), Carried({}), frozenset(), frozenset(), has_own_vector=True)
    ancestors = list(ancestors_of(snapshot, table.metadata))
    carried = next(_carried(ancestors), None)
    if carried is None:
        raise VectorMissing(
            f"{name_of(table)} has history, but none of its {len(ancestors)} reachable snapshots carries an offset vector: "
            "other writers' snapshots are left and those of k2stream have expired. Nothing was written. "
            "`k2 adopt` makes a vector from the rows' own topic, partition and offset and begins a new count."
        )
    return _made(table, ancestors, carried, has_own_vector=VECTOR in summary_of(snapshot))


def _made(table: Table, ancestors: list[Snapshot], carried: Carried, *, has_own_vector: bool) -> Head:
    newest = ancestors[0]
    return Head(
        newest.snapshot_id,
        newest.sequence_number or 0,
        str(table.metadata.table_uuid),
        carried,
        frozenset(s.snapshot_id for s in ancestors),
        frozenset(id for s in ancestors if (id := summary_of(s).get(COMMIT_ID)) is not None),
        has_own_vector,
    )


def _snapshots(table: Table) -> list[Snapshot]:
    return list(ancestors_of(table.current_snapshot(), table.metadata))


def _carried(ancestors: list[Snapshot]) -> Iterator[Carried]:
    for snapshot in ancestors:
        carried = carried_by(summary_of(snapshot))
        if carried is not None:
            yield carried


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """A snapshot's summary; empty where a writer left none."""
    return snapshot.summary.additional_properties if snapshot.summary else {}


def name_of(table: Table) -> str:
    """`namespace.table`, for people."""
    return ".".join(table.name())
