"""Catalogs as workers find them: empty, opened by many at once, held by somebody who stopped in the middle."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from k2stream.chaos.http_proxy import Effect, Fault, HttpProxy
from k2stream.dev.service import Service
from k2stream.lake.catalog import open_catalog
from k2stream.lake.file_io import DurableFileIO
from k2stream.lake.sql_catalog import open_sql_catalog
from tests.integration.conftest import Place, place_on
from tests.integration.lake_site import LakeSite, soon, window

WORKERS = 4


@pytest.fixture
def fresh_place(request: pytest.FixtureRequest, place: Place) -> Iterator[Place]:
    """A place whose catalog has not even its own tables: in PostgreSQL a database of its own."""
    if "postgresql" not in place.get("catalog_uri", ""):
        yield place
        return
    name, server = f"d{uuid4().hex[:12]}", request.getfixturevalue("postgres").exports()["K2_CATALOG_URI"]
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
        yield place | {"catalog_uri": server.replace("/postgres", f"/{name}")}
        while LakeSite.opened:
            LakeSite.opened.pop().close()
        link.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_workers_that_start_at_once_on_an_empty_catalog_share_its_tables(tmp_path: Path, fresh_place: Place) -> None:
    """Each finds what the fastest has made, namespace and tables alike; nobody fails, and all can commit."""
    site = LakeSite(tmp_path, **fresh_place)
    with ThreadPoolExecutor(WORKERS) as pool:
        workers = list(pool.map(lambda _: site.worker(), range(WORKERS)))
    assert len({worker.load().metadata.table_uuid for worker in workers}) == 1
    site.started()
    for number, worker in enumerate(workers):
        worker.commit(worker.write(window(number, number, number + 1)), soon())
    assert site.offsets() == list(range(WORKERS))


@pytest.mark.postgres
def test_a_writer_stopped_before_its_commit_does_not_hold_the_others(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """It has the table's row locked and says nothing more: the server ends its transaction, and the others go on."""
    site = LakeSite(tmp_path, **place_on(request, ("postgres",)), catalog_timeout_ms=500)
    worker, sleeper = site.started(), open_catalog(site.settings)
    site.opened.append(sleeper)
    with sleeper.engine.connect() as link:
        link.execute(text("UPDATE iceberg_tables SET metadata_location = 'nowhere' WHERE table_namespace = :name"), {"name": site.settings.namespace})
        started = time.monotonic()
        worker.commit(worker.write(window(1, 0, 3)), soon())
        assert time.monotonic() - started < 5
        with pytest.raises(Exception, match=r"idle-in-transaction|terminat|closed"):
            link.commit()
        link.invalidate()
    assert site.offsets() == [0, 1, 2]


@pytest.mark.postgres
def test_what_the_address_says_itself_is_kept(tmp_path: Path, postgres: Service) -> None:
    """Time limits are ours unless the address has its own; a connection that died while idle is replaced unnoticed."""
    uri = postgres.exports()["K2_CATALOG_URI"]
    settings = LakeSite(tmp_path, catalog_uri=uri, catalog_timeout_ms=7_000).settings
    shown = []
    for address in (uri, f"{uri}?options=-c%20statement_timeout%3D1234"):
        catalog = open_sql_catalog("k2", settings, address, {"warehouse": str(tmp_path)})
        LakeSite.opened.append(catalog)
        with catalog.engine.connect() as link:
            shown.append(link.execute(text("SHOW statement_timeout")).scalar())
            pid = link.execute(text("SELECT pg_backend_pid()")).scalar()
        with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        assert catalog.list_namespaces() is not None
    assert shown == ["7s", "1234ms"]


@pytest.mark.rest
def test_a_credential_gets_a_token_and_a_new_one_when_it_expires(request: pytest.FixtureRequest, tmp_path: Path, rest: Service) -> None:
    """OAuth's client credentials, asked for at the catalog itself; 419 renews, and what was asked is asked again."""
    with HttpProxy(f"http://{rest.address}") as proxy:
        site = LakeSite(tmp_path, **place_on(request, ("rest",)) | {"catalog_uri": proxy.url, "catalog_credential": "k2:s3cret"})
        worker = site.started()
        tokens = proxy.count("POST", "/v1/oauth/tokens")
        proxy.inject(Fault(Effect.ERROR_INSTEAD, method="GET", path="/tables/trades", status=419))
        worker.commit(worker.write(window(1, 0, 3)), soon())
        assert tokens > 0
        assert proxy.count("POST", "/v1/oauth/tokens") == tokens + 1
    assert "s3cret" not in repr(site.settings)


@pytest.mark.rest
def test_no_server_changes_how_files_are_written(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A server or a table may name another program's file access: ours syncs what the catalog is going to name."""
    site = LakeSite(tmp_path, **place_on(request, ("rest",)))
    worker = site.started()
    with site.stranger().transaction() as change:
        change.set_properties({"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"})
    assert type(worker.load().io) is DurableFileIO
