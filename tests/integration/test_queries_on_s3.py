"""Questions, look-ups, audit and restarts read tables on S3 as they read those on a disk, without a download."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from k2stream.audit import audit_lake
from k2stream.errors import QueryError
from k2stream.lake.table import RowsLake
from k2stream.object_store import ObjectStore, object_store
from k2stream.query.engine import Engine
from k2stream.query.origin import keys_between, rows_of
from k2stream.query.questions import files_for, trades
from k2stream.query.seen import TableSeen
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.testing import A_TRADE
from tests.integration.conftest import place_on, s3_settings
from tests.integration.lake_site import TP, LakeSite, soon, window

TIME_US = int(str(A_TRADE["timestamp"]))


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> LakeSite:
    return LakeSite(tmp_path, **place_on(request, ("s3",)))


@pytest.fixture
def engine(site: LakeSite) -> Iterator[Engine]:
    with Engine.of(site.settings) as engine:
        yield engine


@pytest.fixture
def table(site: LakeSite) -> RowsLake:
    """Two windows of four rows, the second of another symbol."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 4, events=["a"], tracker=b"x")), soon())
    worker.commit(worker.write(window(2, 4, 8, symbol="CBA")), soon())
    worker.take_outbox(soon())
    return worker


@pytest.mark.s3
def test_questions_find_the_rows(table: RowsLake, engine: Engine) -> None:
    """Of the files that may hold them only; the newest first."""
    files = table.files(table.head().snapshot_id)
    worth = files_for(files, symbol="CBA", exchange=None, start=None, end=None)
    assert (len(files), len(worth)) == (2, 1)
    found = trades(engine, worth, symbol="CBA", exchange=None, start=None, end=None, limit=10)
    assert sorted(found["trade_id"].to_pylist()) == [f"ASX-0-{offset}" for offset in range(4, 8)]


@pytest.mark.s3
def test_the_exact_stage_sees_what_is_committed(table: RowsLake, engine: Engine) -> None:
    """The look-up that keeps duplicates out answers from the store."""
    ids = pa.array(["ASX-0-1", "ASX-0-99", "ASX-0-6"])
    seen = TableSeen(table.files, 1_000_000, engine=engine)
    mask = seen(pa.array(["ASX"] * 3), pa.array(["BHP", "BHP", "CBA"]), ids, pa.array(np.full(3, TIME_US)), table.head().snapshot_id)
    assert mask.tolist() == [True, False, True]


@pytest.mark.s3
def test_a_restart_reads_rows_and_keys(table: RowsLake, engine: Engine) -> None:
    """Rows of an origin in offset order, keys of a time, and the tracker's state."""
    files = table.files(table.head().snapshot_id)
    assert rows_of(files, TP, 2, 6, engine=engine)["offset"].to_pylist() == [2, 3, 4, 5]
    assert keys_between(files, start_us=TIME_US, stop_us=TIME_US + 1, engine=engine).num_rows == 8
    assert table.tracker_blob(table.head().vector[TP].tracker_file, TP) == (4, b"x")


@pytest.mark.s3
def test_an_audit_recounts_the_store(site: LakeSite, table: RowsLake) -> None:
    """The ledger balances, and a file that somebody removed is named."""
    assert audit_lake(site.settings).balanced
    lost = table.files(table.head().snapshot_id)[0].path
    site.remove(lost)
    report = audit_lake(site.settings)
    assert not report.balanced
    assert any(lost in problem for problem in report.problems)


@pytest.mark.s3
def test_a_secret_is_neither_shown_nor_logged(site: LakeSite, table: RowsLake, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Not by an error, not by a question, not by the settings or the store as text."""
    secret = site.settings.s3_secret_access_key.get_secret_value()
    caplog.set_level(logging.DEBUG)
    with pytest.raises(QueryError) as caught:
        engine.ask("SELECT * FROM read_parquet($files)", files=[TableFile("s3://k2stream/none.parquet", 1, 1, {}, {})])
    shown = engine.ask("SELECT * FROM duckdb_secrets()").to_pylist()
    assert "none.parquet" in str(caught.value)
    assert secret not in f"{caught.value} {shown} {site.settings!r} {object_store(site.settings)!r} {caplog.text}"


def test_an_engine_for_the_disk_reaches_no_store() -> None:
    """Closed to the network unless the tables lie there."""
    with Engine() as engine, pytest.raises(QueryError, match="opened for files on the disk"):
        engine.ask("SELECT * FROM read_parquet($files)", files=[TableFile("s3://k2stream/a.parquet", 1, 1, {}, {})])


def test_the_store_is_that_of_the_settings_else_of_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Endpoint and region each for itself, the keys together: half a pair from each would be nobody's."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://aws:1",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "theirs",
        "AWS_SECRET_ACCESS_KEY": "theirs",
    }.items():
        monkeypatch.setenv(name, value)
    assert ObjectStore.of(Settings(home=tmp_path)) == ObjectStore("http://aws:1", "eu-west-1", "theirs", "theirs")
    ours = Settings(home=tmp_path, **s3_settings("http://ours:1/", "ours"))
    assert ObjectStore.of(ours) == ObjectStore("http://ours:1", "us-east-1", "k2", "ours")
    assert object_store(Settings(home=tmp_path)) is None
    assert object_store(Settings(home=tmp_path, warehouse="s3://bucket/a")) is not None
