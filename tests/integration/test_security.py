"""Who may look in: pages behind a key or on this machine only, files and sockets for their user, and no pickle."""

import os
import re
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.app import create_app
from k2stream.errors import SettingsError
from k2stream.settings import Settings, load_settings
from k2stream.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
KEY = "a long and secret key"
PAGES = ("/", "/state", "/metrics", "/table/", "/table/instruments/", "/router/", "/no/such/page")
"""Ours, Faust's own, and one that does not exist: it must not say so to strangers."""

pytestmark = pytest.mark.timeout(120)


def status(worker: WorkerProcess, page: str, key: str | None = None, method: str = "GET", header: str = "X-API-Key") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{worker.port}{page}", method=method, headers={} if key is None else {header: key})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home made under the most careless umask there is."""
    home = tmp_path_factory.mktemp("security") / "k2"
    command = [sys.executable, "-m", "k2stream.cli", "feed", "recorded", "--rows", "500"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"K2_HOME": str(home)}, capture_output=True, check=True, umask=0)
    return home


@pytest.fixture(scope="module")
def worker(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A worker with a key, that committed what the log holds."""
    log = tmp_path_factory.mktemp("logs") / "worker.log"
    before = os.umask(0)
    try:
        worker = WorkerProcess(home=home, root=ROOT, log_path=log, environment={"K2_WEB_KEY": KEY, "K2_WINDOW_MS": "300"})
    finally:
        os.umask(before)
    with worker:
        deadline = time.monotonic() + 60
        while "window.committed" not in log.read_text():
            assert worker.exit_code() is None, worker.last_lines(20)
            assert time.monotonic() < deadline, worker.last_lines(20)
            time.sleep(0.1)
        yield worker


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", "\u00fc"])
def test_every_page_asks_for_the_key(worker: WorkerProcess, page: str, key: str | None) -> None:
    """Faust's own pages show tables and routes, so they are guarded as ours are, for every method."""
    assert status(worker, page, key) == 401
    assert status(worker, page, key, "POST") == 401


def test_the_key_opens_pages_and_health_needs_none(worker: WorkerProcess) -> None:
    """Who has the key sees everything; a load balancer sees red or green."""
    assert {page: status(worker, page, KEY) for page in PAGES if "no/such" not in page} == dict.fromkeys(PAGES[:-1], 200)
    assert status(worker, "/no/such/page", KEY) == 404
    assert status(worker, "/healthz") == 200
    assert status(worker, "/livez") == 200


def test_prometheus_gives_the_key_as_a_bearer_token(worker: WorkerProcess) -> None:
    """It can send no header of our own; a wrong token opens nothing."""
    assert status(worker, "/metrics", f"Bearer {KEY}", header="Authorization") == 200
    assert status(worker, "/metrics", f"Bearer {KEY}x", header="Authorization") == 401


def test_a_worker_listens_on_this_machine_only(tmp_path: Path) -> None:
    """By default: Faust's own default is every address that the machine has."""
    conf = create_app(Settings(home=tmp_path)).conf
    assert (conf.web_bind, conf.web_host) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize("variable", ["K2_WEB_HOST", "K2_API_HOST"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_another_address_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, host: str, variable: str) -> None:
    """One sentence that names both variables; with a key the address is taken."""
    monkeypatch.setenv(variable, host)
    with pytest.raises(SettingsError, match=rf"{variable}.*K2_WEB_KEY") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("K2_WEB_KEY", KEY)
    assert getattr(load_settings(), variable.removeprefix("K2_").lower()) == host


def test_everything_under_the_home_is_the_users_alone(home: Path, worker: WorkerProcess) -> None:
    """Files 600, folders and sockets without any right for others, while a worker runs; umask 0 does not help anybody in."""
    found = {path: path.lstat() for path in (home, *home.rglob("*"))}
    open_to_others = {str(path.relative_to(home)): oct(stat.S_IMODE(s.st_mode)) for path, s in found.items() if s.st_mode & 0o077}
    assert open_to_others == {}
    assert any(stat.S_ISSOCK(s.st_mode) for s in found.values()) or len(os.fsencode(home)) > 80
    assert {path.relative_to(home).parts[0] for path in found if path != home} >= {"log", "catalog.db", "warehouse"}
    assert {s.st_uid for s in found.values()} == {os.geteuid()}


def test_the_key_is_not_written_down(home: Path, worker: WorkerProcess) -> None:
    """Neither in the worker's log nor in any file of the home."""
    files = [worker.log_path, *(path for path in home.rglob("*") if path.is_file())]
    assert [str(path) for path in files if KEY.encode() in path.read_bytes()] == []


def test_no_code_of_ours_can_unpickle() -> None:
    """Bytes from a log or a table must never become code: no pickle, marshal, shelve, dill, yaml.load or eval."""
    word = re.compile(r"\b(c?pickle|marshal|shelve|dill|cloudpickle|joblib|yaml\.load|allow_pickle\s*=\s*True|eval\(|exec\()")
    files = [path for folder in ("k2stream", "agents", "tables") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    assert [f"{path.relative_to(ROOT)}: {line.strip()}" for path in files for line in path.read_text().splitlines() if word.search(line)] == []


SERIALIZERS = """
from agents import app
print(app.conf.key_serializer, app.conf.value_serializer)
for agent in app.agents.values():
    print(agent.channel.key_serializer, agent.channel.value_serializer)
for table in app.tables.values():
    print(table.key_serializer, table.value_serializer, table.changelog_topic.key_serializer, table.changelog_topic.value_serializer)
"""


def test_faust_serializes_without_pickle() -> None:
    """Faust knows a codec of that name: no topic, table or changelog of ours uses it."""
    done = subprocess.run([sys.executable, "-c", SERIALIZERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"raw", "json"}
    assert len(done.stdout.splitlines()) >= 4
