"""Several connections of one process to one database, and another process that comes and goes: nothing written is lost."""

import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from k2stream.lake.catalog import open_catalog
from k2stream.private_file import make_private_file
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.embedded_log import EmbeddedLog

TP = TopicPartition("trades", 0)

COMES_AND_GOES = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(db.execute(sys.argv[2]).fetchall()); db.close()"


def asked_elsewhere(path: Path, question: str) -> str:
    """What another process reads; when it leaves, SQLite tidies up if it takes itself for the last one."""
    return subprocess.run([sys.executable, "-c", COMES_AND_GOES, str(path), question], check=True, capture_output=True, text=True).stdout.strip()


def test_a_file_is_its_owners_alone_and_an_existing_one_is_left_as_it_is(tmp_path: Path) -> None:
    """Whatever the umask says; what is there keeps its bytes and its mode."""
    path = tmp_path / "a.db"
    make_private_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"rows")
    path.chmod(0o640)
    make_private_file(path)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"rows", 0o640)


def test_what_a_worker_writes_to_the_log_outlives_a_visitor(tmp_path: Path) -> None:
    """A feed ends beside a worker with two connections: the worker's next write is read by everybody."""
    with closing(EmbeddedLog(tmp_path)) as first:
        first.create_topic(TP.topic, 1)
        with closing(EmbeddedLog(tmp_path)):
            assert asked_elsewhere(first.path, "SELECT name FROM topics") == "[('trades',)]"
            first.commit("group", {TP: 5})
            assert asked_elsewhere(first.path, "SELECT next_offset FROM group_offsets") == "[(5,)]"


def test_what_a_worker_writes_to_the_catalog_outlives_a_visitor(tmp_path: Path) -> None:
    """An audit ends beside a worker with two catalogs: the commit after it is not lost."""
    settings = Settings(home=tmp_path)
    with closing(open_catalog(settings)) as first:
        first.create_namespace("before")
        with closing(open_catalog(settings)) as second:
            second.list_namespaces()
            asked_elsewhere(tmp_path / "catalog.db", "SELECT count(*) FROM iceberg_tables")
            first.create_namespace("after")
            found = asked_elsewhere(tmp_path / "catalog.db", "SELECT DISTINCT namespace FROM iceberg_namespace_properties ORDER BY 1")
    assert found == "[('after',), ('before',)]"
