"""One append to a table, handed to the catalog with the head it was built on; the only place that commits.

PyIceberg's append producer makes the manifests, the snapshot and the requirement; `Catalog.commit_table` gets them from
us. Not through `Transaction.commit_transaction`: its retry re-appends onto a new head without any check (a zombie's
duplicate lands), and without retries it deletes the manifests of a commit that landed behind an error.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AssertRefSnapshotId, AssertTableUUID, RemoveSnapshotsUpdate, TableRequirement, TableUpdate

from k2stream.lake.evolution import evolution_of, evolved
from k2stream.lake.outcome import Kind, kind_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """A commit with its manifests written: whatever the catalog needs to hear, and nothing it could add to."""

    table: Table
    """As loaded: the head that is required."""
    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]


class OneChange(Transaction):
    """A transaction with nothing staged before its one change: its metadata is the table's.

    PyIceberg's own copies them deeply at each look, a dozen times an append: with 50 snapshots three quarters of a commit's time.
    """

    @property
    def table_metadata(self) -> TableMetadata:
        return self._table.metadata


def prepare_append(table: Table, files: Sequence[DataFile], summary: Mapping[str, str], *, commit_id: str, columns: Sequence[pa.Field] = ()) -> Prepared:
    """Write the manifests of an append on `table`'s head; without files an empty snapshot that carries the summary.

    `columns` are what the files hold beyond the declaration; those that the table lacks are added by the same commit.
    """
    evolution = evolution_of(table, columns)
    update = OneChange(evolved(table, evolution)).update_snapshot(snapshot_properties=dict(summary))
    producer = update.merge_append()
    producer.commit_uuid = UUID(commit_id)
    for file in files:
        producer.append_data_file(file)
    updates, requirements = producer._commit()  # noqa: SLF001 - `commit()` would go through the transaction
    required = (*evolution.requirements, *requirements, AssertTableUUID(uuid=table.metadata.table_uuid))
    return Prepared(table, (*evolution.updates, *updates), required)


def prepare_expiry(table: Table, snapshot_ids: Sequence[int], *, unless_named: Sequence[str]) -> Prepared:
    """Take snapshots out of the table's metadata; their files stay. Refused if a ref of these names is there by then.

    Catalogs drop refs along with their snapshots, so a pin that was made meanwhile would go in silence.
    """
    snapshot = table.current_snapshot()
    found = {"main": snapshot.snapshot_id if snapshot else None, **dict.fromkeys(unless_named)}
    required = [AssertRefSnapshotId.model_validate({"ref": ref, "snapshot-id": snapshot_id}) for ref, snapshot_id in found.items()]
    updates = (RemoveSnapshotsUpdate.model_validate({"snapshot-ids": list(snapshot_ids)}),)
    return Prepared(table, updates, (*required, AssertTableUUID(uuid=table.metadata.table_uuid)))


def commit(catalog: Catalog, prepared: Prepared) -> Table:
    """Let the catalog decide; the table as it is afterwards. Any exception leaves the outcome unknown."""
    base = prepared.table
    response = catalog.commit_table(base, prepared.requirements, prepared.updates)
    after = Table(base.name(), response.metadata, response.metadata_location, base.io, catalog, base.config)
    if kind_of(catalog) is Kind.SQL:  # a REST server does it itself
        _delete_old_metadata(after, base.metadata)
    return after


def _delete_old_metadata(table: Table, before: TableMetadata) -> None:
    """Delete metadata files that fell out of the table's log; what cannot be deleted stays, as an orphan."""
    kept = {entry.metadata_file for entry in table.metadata.metadata_log}
    for entry in before.metadata_log:
        if entry.metadata_file not in kept:
            with suppress(OSError):
                table.io.delete(entry.metadata_file)
