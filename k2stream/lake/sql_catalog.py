"""An Iceberg catalog in a database: SQLite for one machine, PostgreSQL for more."""

import sqlite3
from contextlib import closing
from pathlib import Path

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog, SqlCatalogBaseTable
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Properties
from sqlalchemy.engine import URL, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from k2stream.lake.file_io import make_folder
from k2stream.private_file import make_private_file
from k2stream.settings import Settings

LOCK_WAIT_SECONDS = 30
"""How long SQLite waits for another process's commit; one takes milliseconds, so longer means that one hangs."""

CONNECT_SECONDS = 4
"""For each address of PostgreSQL's host."""

GRACE_SECONDS = 1.0
"""A server that runs ends a statement itself, and says why."""

RACES = 4
"""Another process may be making the catalog's own tables at the same moment: at each of two, and their types."""

ALREADY = ("already exists", "duplicate key")

POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


class SqlCatalogThatReadsOnce(SqlCatalog):
    """A commit does not read again the metadata that it was built on: their file never changes, and only its name decides."""

    _base: Table | None = None

    def commit_table(self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]) -> CommitTableResponse:
        self._base = table
        try:
            return super().commit_table(table, requirements, updates)
        finally:
            self._base = None

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        base = self._base
        return base if base is not None and base.metadata_location == orm_table.metadata_location else super()._convert_orm_to_iceberg(orm_table)


def open_sql_catalog(name: str, settings: Settings, uri: str, properties: Properties) -> SqlCatalog:
    """The catalog in that database, its tables made where they are missing. Raises what SQLAlchemy raises, and OSError."""
    url = make_url(uri)
    if url.drivername in POSTGRES:
        url = _postgres(url, settings)
    elif url.drivername == "sqlite":
        _prepare_sqlite(Path(url.database or ""))
        url = url.update_query_dict({"timeout": str(LOCK_WAIT_SECONDS)})
    _make_tables(url)
    return SqlCatalogThatReadsOnce(name, uri=url.render_as_string(hide_password=False), pool_pre_ping="true", **properties)


def _make_tables(url: URL) -> None:
    """What the catalog would do itself, safe if several processes do so at once."""
    engine = create_engine(url, poolclass=NullPool)
    for _ in range(RACES):
        try:
            return SqlCatalogBaseTable.metadata.create_all(engine)
        except DBAPIError as exc:
            if not any(words in str(exc.orig) for words in ALREADY):
                raise


def _postgres(url: URL, settings: Settings) -> URL:
    """With a driver that is installed, the password, and an end to every wait; what the URI says itself is kept.

    A worker stopped between UPDATE and COMMIT would hold the table's row from all others: the server ends such a transaction.
    """
    from k2stream.lake.postgres import ANSWER_SECONDS, DRIVER  # its driver is an extra

    limit_ms = settings.catalog_timeout_ms
    options = f"-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms}"
    own = {
        "connect_timeout": str(CONNECT_SECONDS),
        "options": options,
        "tcp_user_timeout": str(limit_ms),
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "application_name": "k2stream",
        ANSWER_SECONDS: str(limit_ms / 1000 + GRACE_SECONDS),
    }
    password = settings.catalog_password.get_secret_value() or url.password
    url = url.set(drivername=DRIVER, password=password)
    return url.update_query_dict({key: value for key, value in own.items() if key not in url.query})


def _prepare_sqlite(path: Path) -> None:
    """Make the database the user's alone, and its readers and its writer independent of each other (WAL)."""
    make_folder(path.parent)
    make_private_file(path)
    with closing(sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
