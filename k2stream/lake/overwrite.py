"""One snapshot that takes named data files out of a table and puts others in; what compaction, retention and replacement commit.

PyIceberg's own overwrite finds files by partition predicates and leaves manifests as many as they were. Here the files are named: those
that go must be live on the head that is required, or nothing is written. Manifests of the rest are merged on the way.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from uuid import UUID

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AssertTableUUID
from pyiceberg.table.update.snapshot import _MergeAppendFiles

from k2stream.errors import LakeError
from k2stream.lake.append import OneChange, Prepared
from k2stream.lake.evolution import evolution_of, evolved
from k2stream.lake.head import name_of
from k2stream.lake.trouble import translated


def prepare_overwrite(
    table: Table, files: Sequence[DataFile], drops: Collection[str], summary: Mapping[str, str], *, commit_id: str, columns: Sequence[pa.Field] = ()
) -> Prepared:
    """Write the manifests of a snapshot on `table`'s head without the files at `drops` and with `files`; raises LakeError if one is not live there.

    `columns` as for an append: those that the table lacks are added by the same commit.
    """
    evolution = evolution_of(table, columns)
    change = OneChange(evolved(table, evolution))
    producer = _Exchange(operation=Operation.OVERWRITE, transaction=change, io=table.io, snapshot_properties=dict(summary))
    producer.commit_uuid = UUID(commit_id)
    producer.drops = frozenset(drops)
    for file in files:
        producer.append_data_file(file)
    updates, requirements = producer._commit()  # noqa: SLF001 - `commit()` would go through the transaction
    required = (*evolution.requirements, *requirements, AssertTableUUID(uuid=table.metadata.table_uuid))
    return Prepared(table, (*evolution.updates, *updates), required)


def live_files(table: Table) -> dict[str, DataFile]:
    """Data files of the head by location.

    Raises LakeError if the store does not answer, or if a foreign writer left delete files, whose rows nobody here would miss.
    """
    snapshot = table.current_snapshot()
    with translated("read the list of data files", name_of(table)):
        manifests = snapshot.manifests(table.io) if snapshot else []
        _keep_only({m.manifest_path for m in manifests})
        if any(m.content == ManifestContent.DELETES for m in manifests):
            raise LakeError(f"{name_of(table)} has delete files of another writer. Rewrite its data files (copy-on-write), then do this again.")
        return {e.data_file.file_path: e.data_file for m in manifests for e in entries_of(m, table.io)}


_read: dict[str, list[ManifestEntry]] = {}
"""What manifests say, by location: they never change, and a swap that lost a race finds all but the newest here. A swap must not take long."""


def entries_of(manifest: ManifestFile, io: FileIO) -> list[ManifestEntry]:
    """Entries of the files that a manifest names as live; read once."""
    found = _read.get(manifest.manifest_path)
    if found is None:
        found = _read[manifest.manifest_path] = manifest.fetch_manifest_entry(io, discard_deleted=True)
    return found


def _keep_only(names: Collection[str]) -> None:
    """Forget what no head of late names."""
    if len(_read) > 4 * len(names) + 64:
        for name in [name for name in list(_read) if name not in names]:
            _read.pop(name, None)


class _Exchange(_MergeAppendFiles):
    """Manifests of a snapshot in which some files are gone; all that it keeps are merged."""

    drops: frozenset[str] = frozenset()
    """Locations of the files that go."""

    @cached_property
    def _sorted_out(self) -> tuple[list[ManifestFile], list[list[ManifestEntry]], list[ManifestEntry]]:
        """Manifests that stay as they are, what stays of the others, and the entries that go."""
        whole, parts, gone, missing = [], [], [], set(self.drops)
        for manifest in self._parents():
            if not missing:
                whole.append(manifest)
                continue
            entries = entries_of(manifest, self._io)
            going = [e for e in entries if e.data_file.file_path in missing]
            missing -= {e.data_file.file_path for e in going}
            gone += going
            if not going:
                whole.append(manifest)
            elif len(going) < len(entries):
                parts.append([e for e in entries if e.data_file.file_path not in self.drops])
        if missing:
            raise LakeError(f"{len(missing)} of {len(self.drops)} files to be replaced are no longer in the table: another writer was faster.")
        return whole, parts, gone

    def _parents(self) -> Iterator[ManifestFile]:
        snapshot = self._transaction.table_metadata.current_snapshot()
        return (m for m in (snapshot.manifests(self._io) if snapshot else ()) if m.has_added_files() or m.has_existing_files())

    def _build_delete_files_partition_predicate(self) -> None:
        """Not needed: the files are named."""

    def _deleted_entries(self) -> list[ManifestEntry]:
        gone = self._sorted_out[2]
        self._deleted_data_files = {e.data_file for e in gone}  # for the summary's counts
        return [_deleted(e, self._snapshot_id) for e in gone]

    def _existing_manifests(self) -> list[ManifestFile]:
        whole, parts, _ = self._sorted_out
        return [*whole, *(self._rewritten(entries) for entries in parts)]

    def _rewritten(self, entries: list[ManifestEntry]) -> ManifestFile:
        with self.new_manifest_writer(self.spec(entries[0].data_file.spec_id)) as writer:
            for entry in entries:
                writer.existing(entry)
        return writer.to_manifest_file()

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        """Merge all but the list of what went: the next commit drops that whole, and no reader opens it twice."""
        self._min_count_to_merge = 2
        keeping = [m for m in manifests if m.has_added_files() or m.has_existing_files()]
        return [*super()._process_manifests(keeping), *(m for m in manifests if m not in keeping)]


def _deleted(entry: ManifestEntry, snapshot_id: int) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.DELETED,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )
