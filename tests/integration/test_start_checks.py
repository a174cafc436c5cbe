"""What a worker refuses to start on, by one sentence with the way out, and how it goes on once that was taken."""


import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.services.start_site import ROWS, WAIT_SECONDS, assert_audited, causes, k2, publish, rows, until, worker

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with trades, all committed."""
    home = tmp_path / "k2"
    publish(home, {})
    run_until(home, ROWS)
    return home


def run_until(home: Path, count: int, **environment: str) -> None:
    """A worker that brings the table to so many rows, and ends well."""
    with worker(home, environment) as w:
        until(w, lambda: rows(w) == count, f"at {count} rows")
        assert w.stop() == 0


def refused(home: Path, *words: str, **environment: str) -> None:
    """A worker that ends by itself with a sentence that has these words."""
    with worker(home, environment) as w:
        assert w.wait(WAIT_SECONDS) == 1, w.last_lines(30)
        last = w.last_lines(1)
    assert last.startswith("k2: "), last
    assert [word for word in words if word not in last] == [], last


def test_a_topic_that_was_made_anew_under_the_table_is_refused(home: Path) -> None:
    """As many offsets and more, but other records: nothing is skipped and nothing is written."""
    shutil.rmtree(home / "log")
    publish(home, {}, rows=2 * ROWS)
    refused(home, "re-created", "K2_BROKER", "K2_NAMESPACE")
    assert_audited_table(home, ROWS)


def assert_audited_table(home: Path, count: int) -> None:
    done = k2(home, "query", "trades", "--limit", str(10 * count), "--format", "csv", environment={})
    assert len(done.stdout.strip().splitlines()) == count + 1, done.stderr


def test_a_second_group_on_the_table_is_refused_until_it_is_handed_over(home: Path) -> None:
    """Both groups would read every partition; after the handover it is the first one's turn to be refused."""
    publish(home, {}, rows=2 * ROWS)
    refused(home, "'k2stream'", "'second'", "K2_APP_ID=k2stream", "k2 adopt --group", K2_APP_ID="second")
    assert "belongs to group 'k2stream'" in k2(home, "doctor", environment={"K2_APP_ID": "second"}).stdout
    done = k2(home, "adopt", "--group", environment={"K2_APP_ID": "second"})
    assert (done.returncode, "belongs to group second now, before to k2stream" in done.stdout) == (0, True), done
    run_until(home, 2 * ROWS, K2_APP_ID="second")
    refused(home, "'second'", "K2_APP_ID=second")
    assert_audited(home, {}, rows=2 * ROWS)


def test_gaps_over_offsets_that_were_given_up_say_so(home: Path) -> None:
    """Deleted before they were read: the partition waits, red; once the loss is accepted, gaps name the topic's loss as their cause."""
    publish(home, {}, rows=3 * ROWS)
    lose_most(home)
    with worker(home, {}) as w:
        until(w, lambda: "k2 adopt --lost" in causes(w).get("capture", ""), "red")
        assert w.stop() == 0
    done = k2(home, "adopt", "--lost", environment={})
    assert (done.returncode, "are given up" in done.stdout) == (0, True), done
    with worker(home, {}) as w:
        until(w, lambda: rows(w) > 0 and (w.state() or {})["trades"]["lag"] == 0, "caught up")
        assert w.stop() == 0
    assert causes_of_gaps(home) == {"topic_loss"}


def lose_most(home: Path) -> None:
    """What a retention that nobody watched does to one partition: of its large log batches the last two are left."""
    with closing(sqlite3.connect(home / "log" / "log.db")) as db, db:
        large = "SELECT id FROM log_batches WHERE last_offset - (id & 0xffffffffffff) > 200 ORDER BY id DESC LIMIT 1 OFFSET 1"
        ((oldest,),) = db.execute(large).fetchall()
        db.execute("DELETE FROM log_batches WHERE id < ? AND id >> 48 = ?", (oldest, oldest >> 48))
        db.execute("UPDATE partitions SET begin_offset = ? WHERE id = ?", (oldest & 0xFFFFFFFFFFFF, oldest >> 48))


def causes_of_gaps(home: Path) -> set[str]:
    """Of the events in the gaps table."""
    from k2stream.lake.reader import TableReader
    from k2stream.settings import Settings

    with closing(TableReader.open_reader(Settings(home=home), "gaps")) as reader:
        return set(reader.load().scan(selected_fields=("cause",)).to_arrow()["cause"].to_pylist())


def test_a_state_that_is_told_is_json(home: Path) -> None:
    """`/state` of a worker that waits is as readable as that of one that works: nobody's dashboard breaks in the hour of need."""
    with worker(home, {"K2_BROKER": "k2kafka://127.0.0.1:9"}) as w:
        until(w, lambda: "127.0.0.1:9" in str(causes(w)), "red")
        state = w.state() or {}
        assert (state["started"], state["healthy"]) == (False, False), state
        assert w.stop() == 0
