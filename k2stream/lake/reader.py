"""A table as queries and audits read it: pinned heads, their files, tracker states."""

from collections.abc import Mapping

import pyarrow as pa
import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2stream.errors import LakeError
from k2stream.lake.catalog import load_table, open_catalog
from k2stream.lake.evolution import arrow_columns
from k2stream.lake.files import FileLists
from k2stream.lake.head import Head, head_at, head_of
from k2stream.lake.tracker_file import unpack_tracker
from k2stream.lake.trouble import translated
from k2stream.lake.writer import read_bytes
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.table_file import TableFile

log = structlog.get_logger(__name__)


class TableReader:
    """Reads one table and never writes it; may be asked from any thread."""

    def __init__(self, catalog: Catalog, settings: Settings, table: str) -> None:
        self.catalog = catalog
        self.name = (settings.namespace, table)
        """Namespace and name in the catalog."""
        self._settings = settings
        self._seen: Table | None = None
        self._lists = FileLists(self._table_keeping)
        self._newest_tracker: tuple[str, Mapping[TopicPartition, tuple[int, bytes]]] = ("", {})

    @classmethod
    def open_reader(cls, settings: Settings, table: str) -> "TableReader":
        """A reader of an existing table; raises LakeError if it cannot be read."""
        reader = TableReader(open_catalog(settings), settings, table)
        reader.load()
        return reader

    def beside(self, table: str) -> "TableReader":
        """Another table of the same catalog, whose connections stay this reader's; nothing is asked yet."""
        return TableReader(self.catalog, self._settings, table)

    def exists(self) -> bool:
        """Whether the catalog knows the table; raises LakeError if it does not say."""
        with translated("look for the table", ".".join(self.name)):
            return self.catalog.table_exists(self.name)

    def newest_files(self) -> list[TableFile]:
        """The live data files as the catalog has them now, whoever wrote last; raises LakeError."""
        snapshot = self.load().current_snapshot()
        return self.files(snapshot.snapshot_id) if snapshot else []

    def load(self) -> Table:
        """The table as the catalog has it now; raises LakeError if it does not say."""
        self._seen = load_table(self.catalog, self._settings, self.name[1])
        return self._seen

    def columns(self) -> pa.Schema:
        """The table's columns as the catalog has them now; raises LakeError if it does not say."""
        return arrow_columns(self.load().schema())

    def head(self) -> Head:
        """The head as the catalog has it now. Raises VectorMissing, or LakeError if the catalog does not answer."""
        return head_of(self.load())

    def head_at(self, snapshot_id: int) -> Head:
        """A snapshot as it was committed; raises LakeError if it is no longer kept."""
        return head_at(self._table_keeping(snapshot_id), snapshot_id)

    def files(self, snapshot_id: int) -> list[TableFile]:
        """The live data files of a snapshot; raises LakeError if it is no longer kept."""
        return self._lists.files(snapshot_id)

    def tracker_blob(self, name: str, tp: TopicPartition) -> tuple[int, bytes] | None:
        """The offset and the state that a tracker file holds for `tp`; None if it cannot be read or does not speak of it."""
        return self._tracker(name).get(TopicPartition(*tp))

    def _tracker(self, name: str) -> Mapping[TopicPartition, tuple[int, bytes]]:
        """States of a tracker file; the newest read is kept, as every partition of a restart asks for it."""
        if self._newest_tracker[0] != name:
            table = self._seen or self.load()
            try:
                self._newest_tracker = (name, unpack_tracker(read_bytes(table.io, name)))
            except (FileNotFoundError, LakeError) as exc:
                log.warning("tracker_file.unreadable", file=name, cause=str(exc), then="older state and the table's rows are read; causes of gaps may be lost")
                return {}
            except OSError as exc:
                raise LakeError(f"The tracker file {name} cannot be read now: {exc}. It is asked for again.") from exc
        return self._newest_tracker[1]

    def _table_keeping(self, snapshot_id: int) -> Table:
        """The table as last seen if it kept the snapshot then, else as it is now."""
        if self._seen is not None and self._seen.snapshot_by_id(snapshot_id) is not None:
            return self._seen
        return self.load()

    def close(self) -> None:
        """Give the catalog's connections back."""
        self.catalog.close()
