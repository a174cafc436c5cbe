"""Pins: tags of Iceberg by which a receipt's snapshot is kept, with its files, until a time that the tag itself carries."""

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, RemoveSnapshotRefUpdate, SetSnapshotRefUpdate, TableUpdate

from k2stream.clock import Deadline
from k2stream.lake.append import Prepared, commit
from k2stream.lake.commit import Committer
from k2stream.lake.head import head_at, name_of
from k2stream.lake.trouble import translated

PREFIX = "k2-pin-"


def pin_name(snapshot_id: int) -> str:
    """The tag that pins a snapshot."""
    return f"{PREFIX}{snapshot_id}"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned snapshot."""

    name: str
    snapshot_id: int
    until_ms: int

    def is_over(self, now_ms: int) -> bool:
        """True if the snapshot may go."""
        return now_ms >= self.until_ms


def pins_of(table: Table) -> Iterator[Pin]:
    """Pins of `table` as loaded; tags of other people are none, and stay for ever."""
    for name, ref in table.metadata.refs.items():
        snapshot = table.snapshot_by_id(ref.snapshot_id)
        if name.startswith(PREFIX) and ref.max_ref_age_ms is not None and snapshot is not None:
            yield Pin(name, ref.snapshot_id, snapshot.timestamp_ms + ref.max_ref_age_ms)


def pin(committer: Committer, snapshot_id: int, *, until_ms: int, deadline: Deadline) -> Pin:
    """Keep a snapshot until then; one that is pinned already keeps the later time. Raises LakeError if it is no longer kept."""
    with committer.turn(deadline):
        table = committer.load()
        head_at(table, snapshot_id)
        snapshot, name = table.snapshot_by_id(snapshot_id), pin_name(snapshot_id)
        assert snapshot is not None
        before = next((p for p in pins_of(table) if p.name == name), None)
        until_ms = max(until_ms, before.until_ms if before else 0)
        # Iceberg counts a tag's age from its snapshot, so other tools that expire by it mean the same moment.
        age_ms = max(1, until_ms - snapshot.timestamp_ms)
        said = {"ref-name": name, "type": SnapshotRefType.TAG, "snapshot-id": snapshot_id, "max-ref-age-ms": age_ms}
        _commit(committer, table, SetSnapshotRefUpdate.model_validate(said), name, snapshot_id if before else None)
    return Pin(name, snapshot_id, until_ms)


def unpin(committer: Committer, names: list[str], deadline: Deadline) -> None:
    """Let go of pins; raises LakeError if the catalog refuses."""
    for name in names:
        with committer.turn(deadline):
            table = committer.load()
            if name in table.metadata.refs:
                update = RemoveSnapshotRefUpdate.model_validate({"ref-name": name})
                _commit(committer, table, update, name, table.metadata.refs[name].snapshot_id)


def _commit(committer: Committer, table: Table, update: TableUpdate, name: str, found: int | None) -> None:
    required = AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": found})
    with translated("pin a snapshot", name_of(table)):
        committer.table = commit(committer.catalog, Prepared(table, (update,), (required, AssertTableUUID(uuid=table.metadata.table_uuid))))
