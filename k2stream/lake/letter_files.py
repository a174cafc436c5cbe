"""Every file of dead letters that commits have named: those of their table, and those that its outbox has not taken yet."""

from collections.abc import Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from k2stream.lake.evolution import arrow_columns
from k2stream.lake.files import FileLists
from k2stream.lake.head import Head, head_of, head_or_start
from k2stream.lake.letters_before import LETTER_SOURCES, LETTER_TABLE, letters_before
from k2stream.lake.outbox import LETTERS, applied_of, named_after
from k2stream.lake.trouble import translated
from k2stream.settings import Settings
from k2stream.table_file import TableFile


class LetterFiles:
    """Letters of all committed windows; one that a rollback brings again may stand in two files."""

    def __init__(self, catalog: Catalog, settings: Settings, sources: Sequence[str] = LETTER_SOURCES) -> None:
        """`sources` name the tables whose windows bring letters; one that does not exist brings none."""
        self._catalog, self._namespace, self._sources = catalog, settings.namespace, sources
        self._letters: Table | None = None
        self._lists = FileLists(lambda _: self._now())

    def _now(self) -> Table:
        assert self._letters is not None
        return self._letters

    def files(self) -> list[TableFile]:
        """All of them now; raises LakeError. The sources are read first: a file taken meanwhile is then in the table."""
        sources = {name: table for name in self._sources if (table := self._load(name)) is not None}
        self._letters = self._load(LETTER_TABLE)
        if self._letters is None:
            return []
        head, snapshot = head_or_start(self._letters), self._letters.current_snapshot()
        held = self._lists.files(snapshot.snapshot_id) if snapshot else []
        known = {file.path for file in held}
        waiting = [path for name, table in sources.items() for path in named_after(table, applied_of(head, name), LETTERS)]
        return [*held, *(TableFile(path, 0, 0, {}, {}) for path in waiting if path not in known)]

    def head_of(self, source: str) -> tuple[Head, list[TableFile]] | None:
        """A source's head and its data files; None if there is no such table. Raises LakeError."""
        table = self._load(source)
        if table is None:
            return None
        head = head_of(table)
        return head, FileLists(lambda _: table).files(head.snapshot_id) if head.snapshot_id is not None else []

    def heads(self) -> dict[str, int | None]:
        """The newest snapshot of each source; one that does not exist is left out. Raises LakeError."""
        tables = {name: self._load(name) for name in self._sources}
        return {name: table.metadata.current_snapshot_id for name, table in tables.items() if table is not None}

    def before(self) -> int | None:
        """How many letters there were before there was a table for them, as far as anybody counted. Raises LakeError."""
        table = self._load(LETTER_TABLE)
        return None if table is None else letters_before(table)

    def columns_of(self, source: str) -> pa.Schema | None:
        """A source's columns; None if there is no such table. Raises LakeError."""
        table = self._load(source)
        return None if table is None else arrow_columns(table.schema())

    def _load(self, name: str) -> Table | None:
        with translated("read the table", f"{self._namespace}.{name}"):
            try:
                return self._catalog.load_table((self._namespace, name))
            except NoSuchTableError:
                return None
