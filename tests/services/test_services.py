"""Each server that tests and `k2 dev` run on: it starts, answers, ends when it shall, and leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from k2stream.dev.service import Service, ask
from k2stream.dev.services import SERVICES
from k2stream.errors import ServiceError, ServiceMissing
from k2stream.settings import Settings
from k2stream.worker_process import free_port

WAIT_SECONDS = 15.0
ALL = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in SERVICES]

# Starts a server, says who it is, and is killed.
PARENT = """
import sys, time
from pathlib import Path
from k2stream.dev.services import SERVICES
from k2stream.settings import Settings
service = SERVICES[sys.argv[1]](Path(sys.argv[2]), Settings())
service.start()
print(service.pid, service.port, flush=True)
time.sleep(600)
"""


def use_kafka(service: Service) -> None:
    """Writes a record and sees it in the log."""
    from k2stream.records import TopicPartition
    from k2stream.transport.kafka_sink import KafkaSink
    from k2stream.transport.sink import Outgoing

    async def write() -> tuple[int, int]:
        sink = KafkaSink(service.address)
        try:
            await sink.create_topic("tried", 1, {})
            await sink.send("tried", 0, [Outgoing(None, b"value", 1_700_000_000_000)])
            return await sink.bounds(TopicPartition("tried", 0))
        finally:
            await sink.close()

    assert asyncio.run(write()) == (0, 1)


def use_postgres(service: Service) -> None:
    """Makes a table, and is refused with another password."""
    import psycopg

    url = service.exports()["K2_CATALOG_URI"].replace("+psycopg", "")
    with psycopg.connect(url) as link:
        link.execute("CREATE TABLE tried (n int)")
        link.execute("INSERT INTO tried VALUES (1)")
        assert link.execute("SELECT n FROM tried").fetchall() == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(service.secret(), "another"))


def use_s3(service: Service) -> None:
    """Writes an object and reads it back, and is refused with another key."""
    from pyarrow.fs import S3FileSystem

    def reach(secret: str) -> S3FileSystem:
        given = service.exports()
        return S3FileSystem(access_key=given["AWS_ACCESS_KEY_ID"], secret_key=secret, endpoint_override=given["AWS_ENDPOINT_URL"], region=given["AWS_REGION"])

    files = reach(service.secret())
    with files.open_output_stream("k2stream/folder/tried") as out:
        out.write(b"value")
    assert files.open_input_stream("k2stream/folder/tried").read() == b"value"
    with pytest.raises(OSError, match=r"403|ACCESS_DENIED|SIGNATURE"):
        reach("another").open_input_stream("k2stream/folder/tried").read()


def use_rest(service: Service) -> None:
    """Makes a table, appends to it and reads it back."""
    import pyarrow as pa
    from pyiceberg.catalog.rest import RestCatalog

    rows = pa.table({"n": [1, 2]})
    with closing(RestCatalog("tried", uri=service.exports()["K2_CATALOG_URI"])) as catalog:
        catalog.create_namespace("tried")
        catalog.create_table("tried.tried", rows.schema).append(rows)
        assert catalog.load_table("tried.tried").scan().to_arrow().equals(rows)


def use_registry(service: Service) -> None:
    """Registers a schema, which then has an id, under the compatibility that tables rely on."""
    from k2stream.decode.registry import HttpRegistry

    schema = '{"type": "record", "name": "Tried", "fields": [{"name": "n", "type": "long"}]}'
    registry = HttpRegistry(service.exports()["K2_REGISTRY_URL"])
    number = registry.register("tried-value", schema)
    assert registry.register("tried-value", schema) == number
    assert registry.schema(number) is not None
    with urllib.request.urlopen(f"http://{service.address}/config") as answer:
        assert b"BACKWARD" in answer.read()


def use_redis(service: Service) -> None:
    """Writes a key and reads it back, and is refused without the password."""
    import redis

    url = service.exports()["K2_REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        client.set("tried", b"value")
        assert client.get("tried") == b"value"
    with redis.Redis.from_url(url.replace(f":{service.secret()}@", "")) as client, pytest.raises(redis.AuthenticationError):
        client.get("tried")


USES: dict[str, Callable[[Service], None]] = {
    "kafka": use_kafka,
    "postgres": use_postgres,
    "s3": use_s3,
    "rest": use_rest,
    "registry": use_registry,
    "redis": use_redis,
}


def processes_of(pid: int) -> set[psutil.Process]:
    """The server and every process that it started."""
    server = psutil.Process(pid)
    return {server, *server.children(recursive=True)}


def alive(processes: set[psutil.Process]) -> list[str]:
    """What still runs of them; psutil tells a process from another one with its number."""
    return [str(p) for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def shared_memory_of(pid: int) -> list[str]:
    """System V segments that the process made: they outlive it unless it removes them."""
    table = Path("/proc/sysvipc/shm")
    lines = table.read_text().splitlines()[1:] if table.exists() else []
    return [line for line in lines if int(line.split()[4]) == pid]


def until(is_so: Callable[[], bool]) -> bool:
    """Whether it became so in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_so()


@pytest.mark.parametrize("name", ALL)
def test_server_answers_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    """A real client is served; after the stop no process, no listener and no shared memory is left."""
    with SERVICES[name](tmp_path / "data", Settings()) as service:
        USES[name](service)
        processes, pid = processes_of(service.pid), service.pid

    assert alive(processes) == []
    assert ask(service.port, b"") == b""
    assert shared_memory_of(pid) == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ALL)
def test_server_starts_again_in_its_folder(name: str, tmp_path: Path) -> None:
    """What `k2 dev` keeps between two days is read again, on another port."""
    service = SERVICES[name](tmp_path, Settings())
    with service:
        secret = service.exports()
    with service:
        assert set(service.exports()) == set(secret)
        assert service.answers()


@pytest.fixture
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that started a server."""
    with subprocess.Popen([sys.executable, "-c", PARENT, request.param, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
@pytest.mark.parametrize("parent", ALL, indirect=True)
def test_killed_parent_leaves_no_server(parent: subprocess.Popen[str]) -> None:
    """kill -9 of a test run or a keeper: the server ends with it, and so does everything that it started."""
    assert parent.stdout is not None
    pid, port = map(int, parent.stdout.readline().split())
    processes = processes_of(pid)
    os.kill(parent.pid, signal.SIGKILL)

    assert until(lambda: not alive(processes)), alive(processes)
    assert ask(port, b"") == b""
    assert until(lambda: not shared_memory_of(pid))


class Lacking(SERVICES["redis"]):  # type: ignore[misc] # a class looked up
    """Its binary is not there."""

    def lacks(self) -> str:
        return "a binary"


class Deaf(SERVICES["redis"]):  # type: ignore[misc] # a class looked up
    """Says why and ends instead of serving."""

    def lacks(self) -> str:
        return ""

    def command(self) -> list[str]:
        return [sys.executable, "-c", "print('this server is deaf', flush=True)"]


def test_what_is_lacking_is_named_with_what_mends_it(tmp_path: Path) -> None:
    """Nothing is started or made, and the command is in the message."""
    with pytest.raises(ServiceMissing, match=r"redis needs a binary.*make services S=redis"):
        Lacking(tmp_path / "data", Settings()).start()
    assert not (tmp_path / "data").exists()


def test_server_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    """The log's last lines are in the error, and no process is left."""
    service = Deaf(tmp_path / "data", Settings())
    with pytest.raises(ServiceError, match="this server is deaf"):
        service.start()
    assert not service.is_running()


def test_nobody_answers_on_a_free_port() -> None:
    """A probe of an empty port says no instead of raising."""
    assert ask(free_port(), b"PING") == b""


@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("kafka", "postgres", "redis")])
def test_a_killed_server_comes_back_at_its_address(name: str, tmp_path: Path) -> None:
    """As `k2 chaos` breaks it: its clients know no other."""
    with SERVICES[name](tmp_path, Settings()) as service:
        address, pid = service.address, service.pid
        USES[name](service)
        service.kill()
        assert not psutil.pid_exists(pid)
        service.start_again()
        assert (service.address, service.is_running()) == (address, True)
