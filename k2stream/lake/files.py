"""The live data files of a pinned snapshot, with their bounds; each manifest is read once."""

from collections.abc import Callable
from threading import Lock

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import PrimitiveType

from k2stream.errors import LakeError
from k2stream.lake.head import head_at, name_of
from k2stream.lake.trouble import translated
from k2stream.table_file import TableFile


class FileLists:
    """Answers which files a snapshot holds; keeps what it read while the snapshot asked for last still needs it.

    Safe to ask from several threads.
    """

    def __init__(self, table: Callable[[int], Table]) -> None:
        """`table` gives the table as loaded at a time when it kept the snapshot id asked for."""
        self._table = table
        self._lock = Lock()
        self._by_manifest: dict[str, list[TableFile]] = {}

    def files(self, snapshot_id: int) -> list[TableFile]:
        """Files of `snapshot_id`; raises LakeError if it is no longer kept or its manifests cannot be read."""
        table = self._table(snapshot_id)
        snapshot = table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            head_at(table, snapshot_id)  # raises, and says what to do
        assert snapshot is not None
        with self._lock, translated("read the list of data files", name_of(table)):
            return self._files(table, snapshot)

    def _files(self, table: Table, snapshot: Snapshot) -> list[TableFile]:
        names, columns = set(), Columns(table.schema())
        found: list[TableFile] = []
        for manifest in snapshot.manifests(table.io):
            _refuse_deletes(manifest, table)
            names.add(manifest.manifest_path)
            if manifest.manifest_path not in self._by_manifest:
                self._by_manifest[manifest.manifest_path] = _read(table.io, manifest, columns)
            found += self._by_manifest[manifest.manifest_path]
        self._by_manifest = {name: files for name, files in self._by_manifest.items() if name in names}
        return found


class Columns:
    """Names and types of a table's columns by field id, to read bounds with."""

    def __init__(self, schema: Schema) -> None:
        self._by_id = {f.field_id: (f.name, f.field_type) for f in schema.fields if isinstance(f.field_type, PrimitiveType)}

    def values(self, bounds: dict[int, bytes] | None) -> dict[str, object]:
        """Bounds by column name, timestamps as microseconds."""
        known = {self._by_id[id]: raw for id, raw in (bounds or {}).items() if id in self._by_id}
        return {name: from_bytes(kind, raw) for (name, kind), raw in known.items()}


def _read(io: FileIO, manifest: ManifestFile, columns: Columns) -> list[TableFile]:
    return [_table_file(entry.data_file, columns) for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)]


def _table_file(file: DataFile, columns: Columns) -> TableFile:
    return TableFile(
        file.file_path,
        file.record_count,
        file.file_size_in_bytes,
        columns.values(file.lower_bounds),
        columns.values(file.upper_bounds),
    )


def _refuse_deletes(manifest: ManifestFile, table: Table) -> None:
    """A list of files cannot say that some of their rows are gone; an answer that counts them would be wrong."""
    if manifest.content == ManifestContent.DELETES:
        raise LakeError(f"{name_of(table)} has delete files of another writer. Rewrite its data files (copy-on-write), then ask again.")
