"""Real catalogs whose answers are lost, late or lies: a window lands once, nothing is deleted, plain PyIceberg reads the table."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from k2stream.chaos.http_proxy import Effect, Fault, HttpProxy
from k2stream.chaos.tcp_proxy import TcpProxy
from k2stream.dev.postgres import Postgres
from k2stream.dev.service import Service
from k2stream.errors import CommitUnknown, LakeError
from k2stream.settings import Settings
from k2stream.worker_process import free_port
from tests.integration.conftest import place_on, s3_settings
from tests.integration.lake_site import LakeSite, soon, window

COMMIT = "/tables/trades"
"""Part of the path that a commit is posted to."""

QUICK_SECONDS = 12.0
"""Absent services are reported within it, on a busy machine."""


def landed_once(site: LakeSite, worker_files: set[object]) -> None:
    """One snapshot of one window, whose files are all there and readable by others."""
    assert site.snapshots("window") == 1
    assert site.offsets() == [0, 1, 2, 3]
    assert worker_files <= site.files()


# --- REST -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rest_proxy(rest: Service) -> Iterator[HttpProxy]:
    with HttpProxy(f"http://{rest.address}") as proxy:
        yield proxy


@pytest.fixture
def behind(request: pytest.FixtureRequest, tmp_path: Path, rest_proxy: HttpProxy) -> Callable[..., LakeSite]:
    """A lake whose REST catalog is reached through the proxy."""
    place = place_on(request, ("rest",)) | {"catalog_uri": rest_proxy.url}
    return lambda **settings: LakeSite(tmp_path, **place, **settings)


AFTER = [Fault(Effect.LOST_REPLY), *(Fault(Effect.ERROR_AFTER, status=status) for status in (401, 409, 500, 502, 503, 504))]
INSTEAD = [Fault(Effect.RESET), *(Fault(Effect.ERROR_INSTEAD, status=status) for status in (409, 429, 500, 502, 503, 504))]


def name_of(fault: Fault) -> str:
    return f"{fault.effect.value}-{fault.status}" if "error" in fault.effect else fault.effect.value


def on_commit(fault: Fault) -> Fault:
    return Fault(fault.effect, method="POST", path=COMMIT, status=fault.status, delay_ms=fault.delay_ms)


@pytest.mark.rest
@pytest.mark.parametrize("fault", AFTER, ids=name_of)
def test_a_rest_commit_that_landed_behind_a_fault_is_found(behind: Callable[..., LakeSite], rest_proxy: HttpProxy, fault: Fault) -> None:
    """Lost reply, 5xx, a 409 that lies, a 401 after which PyIceberg itself posts again: the look finds the commit."""
    site = behind()
    worker = site.started()
    staged, posts = worker.write(window(1, 0, 4)), rest_proxy.count("POST", COMMIT)
    written = site.files()
    rest_proxy.inject(on_commit(fault))
    worker.commit(staged, soon())
    landed_once(site, written)
    assert rest_proxy.hits == 1
    assert rest_proxy.count("POST", COMMIT) - posts == (2 if fault.status == 401 else 1)
    committer = worker.committers()["trades"]
    is_conflict = fault.status in (401, 409)
    assert (committer.commits, committer.conflicts, committer.unknown_outcomes) == (1, int(is_conflict), int(not is_conflict))


@pytest.mark.rest
@pytest.mark.parametrize("fault", INSTEAD, ids=name_of)
def test_a_rest_commit_that_never_arrived_is_posted_again(behind: Callable[..., LakeSite], rest_proxy: HttpProxy, fault: Fault) -> None:
    """The same files, one snapshot; nobody but the commit loop repeats a request."""
    site = behind()
    worker = site.started()
    staged, posts = worker.write(window(1, 0, 4)), rest_proxy.count("POST", COMMIT)
    rest_proxy.inject(on_commit(fault))
    head = worker.commit(staged, soon())
    landed_once(site, site.files())
    assert [file.path for file in worker.files(head.snapshot_id)] == [file.file_path for file in staged.files]
    assert rest_proxy.count("POST", COMMIT) - posts == 2


@pytest.mark.rest
def test_a_rest_commit_that_lands_late_is_not_repeated(behind: Callable[..., LakeSite], rest_proxy: HttpProxy) -> None:
    """Our patience ends, the look sees nothing, the second try and the first race: one of them lands, and it is known which."""
    site = behind(catalog_timeout_ms=400)
    worker = site.started()
    staged = worker.write(window(1, 0, 4))
    rest_proxy.inject(on_commit(Fault(Effect.DELAY, delay_ms=900)))
    worker.commit(staged, soon())
    time.sleep(1.2)
    landed_once(site, site.files())
    worker.commit(worker.write(window(2, 4, 6)), soon())
    assert site.offsets() == [0, 1, 2, 3, 4, 5]


@pytest.mark.rest
@pytest.mark.parametrize("is_landed", [True, False], ids=["landed", "not landed"])
def test_a_rest_catalog_that_goes_away_leaves_the_outcome_unknown(
    behind: Callable[..., LakeSite], rest_proxy: HttpProxy, rest: Service, is_landed: bool
) -> None:
    """CommitUnknown at the deadline; the same window again, once it is back, lands once."""
    site = behind()
    worker = site.started()
    staged = worker.write(window(1, 0, 4))
    rest_proxy.inject(on_commit(Fault(Effect.LOST_REPLY if is_landed else Effect.RESET)), Fault(Effect.RESET, method="GET", path=COMMIT, nth=2, times=0))
    with pytest.raises(CommitUnknown, match="Whether it landed could not be seen either"):
        worker.commit(staged, soon(0.5))
    rest_proxy.clear()
    worker.commit(staged, soon())
    landed_once(site, site.files())


@pytest.mark.rest
def test_windows_land_once_through_a_storm_of_faults(behind: Callable[..., LakeSite], rest_proxy: HttpProxy) -> None:
    """A quarter of all requests meets some fault: every offset and every event is there once."""
    site = behind(snapshots_kept=8)
    worker = site.started()
    effects = (Effect.LOST_REPLY, Effect.RESET, Effect.ERROR_AFTER, Effect.ERROR_INSTEAD, Effect.ERROR_AFTER)
    rest_proxy.inject(*(Fault(effect, times=0, probability=0.05, seed=seed, status=(500, 409)[seed % 2]) for seed, effect in enumerate(effects)))
    for number in range(20):
        worker.commit(worker.write(window(number, number * 2, number * 2 + 2, events=[f"e{number:02}"])), soon(30))
        worker.take_outbox(soon(30))
    assert rest_proxy.hits > 10
    rest_proxy.clear()
    worker.take_outbox(soon())
    assert site.offsets() == list(range(40))
    assert site.event_ids() == [f"e{number:02}" for number in range(20)]


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "silent"])
def test_an_absent_rest_catalog_is_said_at_once(tmp_path: Path, is_silent: bool) -> None:
    """Nobody listens, or somebody does and says nothing: one retriable sentence within seconds."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1] if is_silent else free_port()
        site, started = LakeSite(tmp_path, catalog_uri=f"http://127.0.0.1:{port}", catalog_timeout_ms=500), time.monotonic()
        with pytest.raises(LakeError, match=rf"^Cannot open the Iceberg catalog at http://127.0.0.1:{port}: .*does not answer \(.+\)") as caught:
            site.worker()
    assert caught.value.is_retriable
    assert time.monotonic() - started < QUICK_SECONDS


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.fixture
def wire(postgres: Service) -> Iterator[TcpProxy]:
    with TcpProxy(postgres.address) as proxy:
        yield proxy


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("words", "is_forwarded", "commits"),
    [(b"COMMIT", True, "landed"), (b"COMMIT", False, "lost"), (b"UPDATE iceberg_tables", True, "refused"), (b"SELECT", False, "refused")],
    ids=["reply to COMMIT lost", "COMMIT lost", "cut before COMMIT", "cut at the look"],
)
def test_a_database_cut_off_around_its_commit_lands_a_window_once(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Service, wire: TcpProxy, words: bytes, is_forwarded: bool, commits: str
) -> None:
    """Unknown only around the database's own COMMIT, and then the look decides; the same files in any case."""
    place = place_on(request, ("postgres",))
    place["catalog_uri"] = place["catalog_uri"].replace(postgres.address, wire.address)
    site = LakeSite(tmp_path, **place)
    worker = site.started()
    staged = worker.write(window(1, 0, 4))
    written = site.files()
    wire.cut_at(words, is_forwarded=is_forwarded)
    worker.commit(staged, soon())
    assert wire.cuts == 1
    landed_once(site, written)
    assert worker.committers()["trades"].unknown_outcomes == int(words == b"COMMIT")


class Killer:
    """Kills a PostgreSQL as `pg_ctl stop -m immediate` does, and starts it again a moment later on another port."""

    def __init__(self, server: Postgres, wire: TcpProxy, step: str) -> None:
        self._server, self._wire, self._step = server, wire, step
        self._is_over = Event()
        self._restarting: Thread | None = None

    def __call__(self, step: str) -> None:
        if step == self._step and self._restarting is None:
            os.kill(self._server.pid, signal.SIGQUIT)
            while self._server.is_running():
                time.sleep(0.01)
            self._restarting = Thread(target=self._restart)
            self._restarting.start()

    def _restart(self) -> None:
        time.sleep(0.3)
        self._server.stop()
        self._server.start()
        self._wire.retarget(self._server.address)
        self._is_over.wait()  # a server ends with the thread that started it

    def close(self) -> None:
        self._is_over.set()
        if self._restarting is not None:
            self._restarting.join()


@pytest.mark.postgres
def test_a_database_killed_before_a_commit_gets_it_after_its_recovery(tmp_path: Path) -> None:
    """The connection is dead, the server away for a while: the worker waits under its deadline and lands the window once."""
    with Postgres(tmp_path / "server", Settings()) as server, TcpProxy(server.address) as wire, closing(Killer(server, wire, "3.before")) as killer:
        uri = server.exports()["K2_CATALOG_URI"].replace(server.address, wire.address)
        site = LakeSite(tmp_path / "home", catalog_uri=uri)
        worker = site.started(on_step=killer)
        first = server.pid
        worker.commit(worker.write(window(1, 0, 4)), soon(60))
        assert server.pid != first
        landed_once(site, site.files())


@pytest.mark.postgres
def test_a_wrong_password_is_one_sentence_without_it(tmp_path: Path, postgres: Service) -> None:
    """What to mend is named, the password is not shown; by setting it need not be in the URI."""
    uri = postgres.exports()["K2_CATALOG_URI"]
    with pytest.raises(LakeError, match=r"refuses who asks .*K2_CATALOG_PASSWORD") as caught:
        LakeSite(tmp_path / "a", catalog_uri=uri.replace(postgres.secret(), "mistyped")).worker()
    assert "mistyped" not in str(caught.value)
    by_setting = {"catalog_uri": uri.replace(f":{postgres.secret()}", "").replace("+psycopg", ""), "catalog_password": postgres.secret()}
    LakeSite(tmp_path / "b", **by_setting, namespace="by_setting").worker()


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "silent"])
def test_an_absent_database_is_said_at_once(tmp_path: Path, is_silent: bool) -> None:
    """As for REST; and the password stays out of it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1] if is_silent else free_port()
        site, started = LakeSite(tmp_path, catalog_uri=f"postgresql://k2:s3cret@127.0.0.1:{port}/lake"), time.monotonic()
        with pytest.raises(LakeError, match=r"^Cannot open the Iceberg catalog at postgresql://k2:\*\*\*@127.*does not answer") as caught:
            site.worker()
    assert caught.value.is_retriable
    assert "s3cret" not in str(caught.value)
    assert time.monotonic() - started < QUICK_SECONDS


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3_proxy(s3: Service) -> Iterator[HttpProxy]:
    with HttpProxy(f"http://{s3.address}") as proxy:
        yield proxy


@pytest.fixture
def on_s3(request: pytest.FixtureRequest, tmp_path: Path, s3: Service, s3_proxy: HttpProxy) -> LakeSite:
    """A lake whose files go through the proxy; its catalog is SQLite."""
    place = place_on(request, ("s3",)) | s3_settings(s3_proxy.url, s3.secret())
    return LakeSite(tmp_path, **place)


@pytest.mark.s3
@pytest.mark.parametrize("effect", [Effect.LOST_REPLY, Effect.RESET, Effect.ERROR_AFTER, Effect.ERROR_INSTEAD], ids=str)
@pytest.mark.parametrize("part", [".parquet", ".avro", ".metadata.json"])
def test_a_store_that_fails_once_is_asked_again(on_s3: LakeSite, s3_proxy: HttpProxy, part: str, effect: Effect) -> None:
    """Rows, manifests, metadata: each upload is repeated until the store has it, and the window lands once."""
    worker = on_s3.started()
    s3_proxy.inject(Fault(effect, method="PUT", path=part, status=503))
    worker.commit(worker.write(window(1, 0, 4)), soon())
    assert s3_proxy.hits == 1
    landed_once(on_s3, on_s3.files())


@pytest.mark.s3
def test_a_window_is_wholly_in_the_store_before_the_catalog_hears_of_it(on_s3: LakeSite, s3_proxy: HttpProxy) -> None:
    """An upload that the store does not confirm ends step 1: no snapshot names the file; later the same worker goes on."""
    worker = on_s3.started()
    s3_proxy.inject(Fault(Effect.ERROR_INSTEAD, method="PUT", path=".parquet", times=0, status=500))
    with pytest.raises(LakeError, match=r"^Cannot write a window's files at s3://[^ ]+: "):
        worker.write(window(1, 0, 4))
    s3_proxy.clear()
    worker.commit(worker.write(window(1, 0, 4)), soon())
    landed_once(on_s3, on_s3.files())


@pytest.mark.s3
def test_a_store_that_is_gone_is_known_not_to_have_committed(on_s3: LakeSite, s3_proxy: HttpProxy) -> None:
    """Metadata that cannot be written never reached the catalog: no CommitUnknown, and the same files land later."""
    worker = on_s3.started()
    staged = worker.write(window(1, 0, 4))
    s3_proxy.inject(Fault(Effect.ERROR_INSTEAD, method="PUT", path=".metadata.json", times=0, status=503))
    with pytest.raises(LakeError, match=r"^Cannot commit at market_data\.trades: ") as caught:
        worker.commit(staged, soon(1))
    assert not isinstance(caught.value, CommitUnknown)
    s3_proxy.clear()
    worker.commit(staged, soon())
    landed_once(on_s3, on_s3.files())


@pytest.mark.s3
def test_wrong_keys_and_buckets_are_named(request: pytest.FixtureRequest, tmp_path: Path, s3: Service) -> None:
    """What to mend is in the sentence, the secret is not."""
    place = place_on(request, ("s3",))
    with pytest.raises(LakeError, match=r"refuses the key .*K2_S3_ACCESS_KEY_ID") as caught:
        LakeSite(tmp_path / "a", **{**place, "s3_secret_access_key": "mistyped"}).worker()
    assert "mistyped" not in str(caught.value)
    with pytest.raises(LakeError, match=r"bucket does not exist .*K2_WAREHOUSE"):
        LakeSite(tmp_path / "b", **{**place, "warehouse": "s3://nowhere/lake"}).worker()


def test_an_absent_store_is_said_at_once(tmp_path: Path) -> None:
    """As for catalogs."""
    started = time.monotonic()
    site = LakeSite(tmp_path, warehouse="s3://k2stream/lake", **s3_settings(f"http://127.0.0.1:{free_port()}", "x"))
    with pytest.raises(LakeError, match=r"the store does not answer \(") as caught:
        site.worker()
    assert caught.value.is_retriable
    assert time.monotonic() - started < QUICK_SECONDS
