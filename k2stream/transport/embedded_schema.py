"""The embedded log's file: how it is made, opened safely, and what its errors mean in plain words."""

import sqlite3
import stat
from pathlib import Path

from k2stream.errors import HomeError, K2Error, LogCorruptError, TransportError
from k2stream.private_file import make_private_file

APPLICATION_ID = 0x6B326C67
"""`k2lg` in SQLite's header: nobody else's database is ever written to."""
VERSION = 1
BUSY_SECONDS = 15.0
PAGE_BYTES = 32 << 10
"""Log batches are 50-500 kB: large pages make their overflow chains short."""
WAL_BYTES = 64 << 20
"""The write-ahead file is cut back to this after a checkpoint."""

PARTITION_SHIFT = 48
"""A log batch's row id is `partition id << 48 | base offset`: the table itself is the index, in the order of reading."""

TABLES = """
CREATE TABLE topics (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL, config TEXT NOT NULL);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
    begin_offset INTEGER NOT NULL DEFAULT 0, end_offset INTEGER NOT NULL DEFAULT 0, UNIQUE (topic_id, partition)
);
CREATE TABLE log_batches (id INTEGER PRIMARY KEY, last_offset INTEGER NOT NULL, appended_ms INTEGER NOT NULL, kind TEXT, raw BLOB NOT NULL);
CREATE TABLE group_offsets (name TEXT, topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL, PRIMARY KEY (name, topic, partition)) WITHOUT ROWID;
CREATE TABLE floors (name TEXT, topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL, PRIMARY KEY (name, topic, partition)) WITHOUT ROWID;
"""


def open_database(folder: Path) -> sqlite3.Connection:
    """Open `folder`/log.db, making both if they are not there, for their owner alone.

    Raises HomeError where the place cannot be used, LogCorruptError where the file is not sound, TransportError where it
    is locked or the disk is full; each says what to do.
    """
    path = folder / "log.db"
    try:
        _make_private(folder, path)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as exc:
        raise plainly(exc, path) from exc
    try:
        _prepare(db, path)
    except (OSError, sqlite3.Error) as exc:
        db.close()
        raise plainly(exc, path) from exc
    except K2Error:
        db.close()
        raise
    return db


def _make_private(folder: Path, path: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    make_private_file(path)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA synchronous=FULL")  # a commit that returned survives a power cut
    if not _is_ours(db, path):
        _create(db, path)
    db.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")


def _is_ours(db: sqlite3.Connection, path: Path) -> bool:
    """False for a file without tables; raises for somebody else's."""
    (application_id,), (version,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    if application_id == APPLICATION_ID and version == VERSION:
        return True
    if application_id == APPLICATION_ID:
        raise HomeError(
            f"{path} was written by another version of k2stream (format {version}, expected {VERSION}). Run that version, or give K2_HOME another folder."
        )
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise HomeError(f"{path} is a database, but not a k2stream log. Give K2_HOME another folder.")
    return False


def _create(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA page_size={PAGE_BYTES}")  # before the first page is written
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(db, path):  # another process may have been quicker
            for statement in TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def plainly(exc: Exception, path: Path) -> K2Error:
    """What went wrong with the log at `path`, where, and what to do."""
    name = getattr(exc, "sqlite_errorname", "") or getattr(exc, "strerror", "") or ""
    if name.startswith("SQLITE_FULL") or (isinstance(exc, OSError) and exc.errno == 28):
        return TransportError(f"The disk that holds the log {path} is full. Free space there and start again; what was acknowledged is kept.")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TransportError(
            f"The log {path} has been locked by another process for {BUSY_SECONDS:.0f} s. "
            "End whatever holds it (a backup? an open sqlite3 shell?) and try again."
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LogCorruptError(f"The log {path} is damaged ({exc}). Move it away, or restore it from a copy; committed rows are safe in the tables.")
    if isinstance(exc, PermissionError) or name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return HomeError(f"The log {path} cannot be opened for writing. Give this user read and write permission on its folder, or set K2_HOME to one it owns.")
    if isinstance(exc, OSError):
        return HomeError(f"The log {path} cannot be made there: {exc.strerror or exc}. Set K2_HOME to a folder that this user can write to.")
    return TransportError(f"The log {path} could not be read or written: {exc}. If it goes on, look at the disk (dmesg) and free space (df).")
