"""The DuckDB engine: in memory, bounded, closed to the network but for the tables' own store; the only place that opens a connection."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from k2stream.errors import AnswerFailed
from k2stream.object_store import ObjectStore, is_object, object_store
from k2stream.query.s3 import open_s3
from k2stream.settings import Settings
from k2stream.table_file import TableFile

MEMORY_BYTES = 512 << 20
"""A bound, not a reservation: a look-up of 250,000 keys in 6 M rows was measured at 60 MB."""

THREADS = 2
"""A worker shares its cores with decode and commit; a look-up of 250,000 rows takes 0.1 s with two."""

CLOSED = {
    "autoinstall_known_extensions": "false",  # an answer never depends on a download
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # a table name never means a Python variable
}

GLOB_CHARACTERS = str.maketrans({c: f"[{c}]" for c in "*?["})

Value = object
"""What DuckDB binds: a number, text, an aware datetime, a list of these."""


class Engine:
    """One DuckDB instance; every question runs on a cursor of its own, so threads may ask at once."""

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES, threads: int = THREADS, spill: Path | None = None, store: ObjectStore | None = None) -> None:
        """`spill` is a folder for what does not fit; None: a question that does not fit is refused.

        `store` is the S3 whose files questions may name; None: no file but the disk's is read.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            **CLOSED,
            "memory_limit": f"{memory_bytes // 1024} KiB",
            "threads": threads,
            "temp_directory": str(spill or ""),
        }
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self._connection.execute("SET GLOBAL parquet_metadata_cache = true")  # data files never change
        self._no_s3 = self._open_s3(store)
        self._connection.execute("SET lock_configuration = true")

    @classmethod
    def of(cls, settings: Settings, *, spill: Path | None = None) -> Self:
        """An engine that reads the tables wherever these settings let them lie."""
        return cls(spill=spill, store=object_store(settings))

    def _open_s3(self, store: ObjectStore | None) -> AnswerFailed | None:
        """Why S3 cannot be read; None if it can. Told only to who asks for a file there: a REST catalog may use the disk."""
        if store is None:
            return AnswerFailed("This engine was opened for files on the disk, and is asked for one on S3.")
        try:
            open_s3(self._connection, store)
        except AnswerFailed as exc:
            return exc
        return None

    def ask(
        self,
        sql: str,
        *,
        files: Sequence[TableFile] = (),
        values: Mapping[str, Value] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pa.Table:
        """Answer of one constant SQL text.

        `files` is bound as `$files`, `values` by their names; `tables` are Arrow tables visible under theirs.
        Raises AnswerFailed with DuckDB's words: a file that is gone, memory that is not enough, S3 that cannot be read.
        """
        if self._no_s3 is not None and any(is_object(file.path) for file in files):
            raise self._no_s3
        bound = dict(values or {})
        if "$files" in sql:
            bound["files"] = [readable_path(file.path) for file in files]
        try:
            with self._connection.cursor() as cursor:
                for name, table in (tables or {}).items():
                    cursor.register(name, table)
                answer: pa.Table = cursor.execute(sql, bound).to_arrow_table()
                return answer
        except duckdb.Error as exc:
            raise AnswerFailed(f"The question could not be answered from {len(files)} data files: {exc}") from exc

    def close(self) -> None:
        """Give the memory back; questions after it fail."""
        self._connection.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def engine_or_own(engine: Engine | None) -> Iterator[Engine]:
    """The caller's engine, left open; else one for this question alone (opening one takes some 10 ms)."""
    if engine is not None:
        yield engine
        return
    with Engine() as own:
        yield own


def readable_path(path: str) -> str:
    """A manifest's path as DuckDB opens exactly that file: without `file://`, glob characters escaped."""
    return path.removeprefix("file://").translate(GLOB_CHARACTERS)
