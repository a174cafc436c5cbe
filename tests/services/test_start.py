"""Services that come late, go and come back: a worker starts, says what it waits for, and goes on by itself."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.dev.service import Service
from k2stream.worker_process import WorkerProcess
from tests.services.start_site import ROWS, assert_audited, causes, promised, publish, rows, until, until_red, until_well, worker

pytestmark = pytest.mark.timeout(600)


def healthz(w: WorkerProcess) -> tuple[int, str]:
    """Status and body of the page that an orchestrator asks."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.port}/healthz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "k2"


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A server with an address that is not started yet."""
    service = promised(request.param, tmp_path / "server")
    yield service
    service.stop()


def late(name: str) -> object:
    return pytest.param(name, marks=getattr(pytest.mark, name))


def lines_naming(w: WorkerProcess, words: str) -> list[str]:
    return [line for line in w.log_path.read_text().splitlines() if words in line]


@pytest.mark.parametrize("server", [late("kafka")], indirect=True)
def test_worker_before_its_broker_waits_and_reads_when_it_comes(home: Path, server: Service) -> None:
    """Pages at once, red with the address; one line every few seconds; then every row, once."""
    environment = dict(server.exports())
    with worker(home, environment) as w:
        until(w, lambda: w.state() is not None, "page open")
        until_red(w, server.address)
        assert healthz(w)[0] == 503
        before = len(lines_naming(w, str(server.port)))
        time.sleep(15)
        assert 2 <= len(lines_naming(w, str(server.port))) - before <= 4, w.last_lines(60)

        server.start(port=server.port)
        until_well(w)
        publish(home, environment)
        until(w, lambda: rows(w) == ROWS, "caught up")
        assert healthz(w)[0] == 200
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("postgres")], indirect=True)
def test_worker_before_its_catalog_waits_and_commits_when_it_comes(home: Path, server: Service) -> None:
    """Red with the address and without the password, on the page and in the log; then every row, once."""
    environment = dict(server.exports())
    publish(home, {})
    with worker(home, environment) as w:
        until_red(w, server.address, "catalog")
        assert server.secret() not in healthz(w)[1]
        server.start(port=server.port)
        until(w, lambda: rows(w) == ROWS, "caught up")
        until_well(w)
        assert w.stop() == 0
        assert lines_naming(w, server.secret()) == []
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("s3")], indirect=True)
def test_worker_before_its_store_waits_and_commits_when_it_comes(home: Path, server: Service) -> None:
    """The catalog is there and the files' place is not: red with its address; then every row, once."""
    environment = dict(server.exports())
    publish(home, {})
    with worker(home, environment) as w:
        until_red(w, server.address, "s3://")
        assert server.secret() not in healthz(w)[1]
        server.start(port=server.port)
        until(w, lambda: rows(w) == ROWS, "caught up")
        until_well(w)
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("redis")], indirect=True)
def test_rows_do_not_wait_for_redis(home: Path, server: Service) -> None:
    """All rows are committed without it; it is shown, red, until it comes, and no password is."""
    environment = dict(server.exports())
    publish(home, {})
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS, "caught up")
        until_red(w, server.address, "Redis")
        assert healthz(w)[0] == 503
        server.start(port=server.port)
        until_well(w)
        assert lines_naming(w, server.secret()) == []
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("registry")], indirect=True)
def test_worker_before_its_registry_shows_it_and_decodes_when_it_comes(home: Path, server: Service) -> None:
    """Red although no record needs it yet; nothing becomes a dead letter."""
    environment = dict(server.exports())
    with worker(home, environment) as w:
        until_red(w, server.address, "registry")
        server.start(port=server.port)
        until_well(w)
        publish(home, environment)
        until(w, lambda: rows(w) == ROWS, "caught up")
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("registry")], indirect=True)
def test_registry_that_hangs_makes_no_dead_letter(home: Path, server: Service) -> None:
    """A worker with an empty cache meets a registry that accepts and does not answer: it waits, red, and every record becomes a row."""
    server.start(port=server.port)
    environment = dict(server.exports())
    publish(home, environment)
    os.kill(server.pid, signal.SIGSTOP)
    with worker(home, environment) as w:
        until_red(w, server.address, "registry")
        time.sleep(3)
        assert rows(w) == 0
        os.kill(server.pid, signal.SIGCONT)
        until(w, lambda: rows(w) == ROWS, "caught up")
        until_well(w)
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("kafka")], indirect=True)
def test_broker_that_restarts_under_a_worker_is_waited_for(home: Path, server: Service) -> None:
    """Red within seconds, quiet meanwhile, and what is published afterwards arrives, once."""
    server.start(port=server.port)
    environment = dict(server.exports())
    publish(home, environment, rows=ROWS // 2)
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS // 2, "caught up")
        until_well(w)
        server.stop()
        until_red(w, server.address)
        before = len(w.log_path.read_text().splitlines())
        time.sleep(10)
        assert len(w.log_path.read_text().splitlines()) - before <= 10, w.last_lines(60)
        server.start(port=server.port)
        publish(home, environment)
        until(w, lambda: rows(w) == ROWS, "caught up again")
        until_well(w)
        assert w.stop() == 0
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("postgres")], indirect=True)
def test_catalog_that_restarts_under_a_worker_is_waited_for(home: Path, server: Service) -> None:
    """Rows that came meanwhile are committed afterwards; a worker that has nothing to commit is red as well, and recovers."""
    server.start(port=server.port)
    environment = dict(server.exports())
    publish(home, {}, rows=ROWS // 2)
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS // 2, "caught up")
        server.stop()
        until_red(w, str(server.port))
        publish(home, {})
        time.sleep(12)
        server.start(port=server.port)
        until(w, lambda: rows(w) == ROWS, "caught up again")
        until_well(w)
        assert w.stop() == 0
        assert lines_naming(w, server.secret()) == []
    assert_audited(home, environment)


@pytest.mark.parametrize("server", [late("redis")], indirect=True)
def test_redis_that_restarts_under_a_worker_is_shown_and_waited_for(home: Path, server: Service) -> None:
    """A commit that finds it away lands all the same."""
    server.start(port=server.port)
    environment = dict(server.exports())
    publish(home, {}, rows=ROWS // 2)
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS // 2, "caught up")
        assert causes(w) == {}
        server.stop()
        publish(home, {})
        until(w, lambda: rows(w) == ROWS, "caught up again")
        until_red(w, server.address, "Redis")
        server.start(port=server.port)
        until_well(w)
        assert w.stop() == 0
    assert_audited(home, environment)
