"""A PostgreSQL that is frozen, not dead: its machine acknowledges every byte, and nobody answers."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from k2stream.dev.postgres import Postgres
from k2stream.lake.catalog import open_catalog
from k2stream.lake.outcome import Kind, Outcome, outcome_of
from k2stream.lake.sql_catalog import GRACE_SECONDS
from k2stream.settings import Settings
from tests.integration.lake_site import LakeSite
from tests.services.start_site import ROWS, assert_audited, k2, publish, rows, until, until_red, until_well, worker

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

ANSWER_MS = 1_000


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """One of this test's own: nobody else is frozen with it."""
    with Postgres(tmp_path / "postgres", Settings()) as server:
        yield server


@contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    """The server and every process that serves a connection stand still."""
    root = psutil.Process(server.pid)
    everybody = [root, *root.children(recursive=True)]
    for process in everybody:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in everybody:
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("is_committing", [False, True], ids=["statement", "commit"])
def test_a_frozen_catalog_is_given_up_in_time(tmp_path: Path, postgres: Postgres, is_committing: bool) -> None:
    """A statement was not committed; of a COMMIT nobody knows. Either way the thread is free again."""
    catalog = open_catalog(Settings(home=tmp_path, catalog_uri=postgres.exports()["K2_CATALOG_URI"], catalog_timeout_ms=ANSWER_MS))
    LakeSite.opened.append(catalog)
    with catalog.engine.connect() as link:  # type: ignore[attr-defined] # an SQL catalog has one
        link.execute(text("CREATE TABLE t (n int)"))
        with frozen(postgres):
            began = time.monotonic()
            with pytest.raises(OperationalError, match="no answer within") as caught:
                link.commit() if is_committing else link.execute(text("INSERT INTO t VALUES (1)"))
            assert time.monotonic() - began < ANSWER_MS / 1000 + GRACE_SECONDS + 5
        assert outcome_of(caught.value, Kind.SQL) is (Outcome.UNKNOWN if is_committing else Outcome.NOT_COMMITTED)
        link.invalidate()
    catalog.close()


def test_a_worker_on_a_frozen_catalog_turns_red_and_goes_on_by_itself(tmp_path: Path, postgres: Postgres) -> None:
    """Within the time of a commit it says what it waits for; once the catalog wakes up every row is there, once."""
    home = tmp_path / "k2"
    environment = {**postgres.exports(), "K2_CATALOG_TIMEOUT_MS": str(ANSWER_MS), "K2_COMMIT_TIMEOUT_MS": "5000"}
    publish(home, environment)
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == ROWS, "caught up")
        until_well(w)
        with frozen(postgres):
            publish_more = k2(home, "feed", "recorded", "--rows", str(2 * ROWS), environment={})
            assert publish_more.returncode == 0, publish_more.stderr
            until_red(w, "does not answer", seconds=60)
        until(w, lambda: rows(w) == 2 * ROWS, "caught up")
        until_well(w)
        assert w.stop() == 0, w.last_lines(30)
    assert_audited(home, environment, rows=2 * ROWS)
