"""The server that a worker starts: private, alone, and gone with its worker."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from k2stream.errors import SettingsError
from k2stream.settings import Settings
from k2stream.state.memory import MemoryStore
from k2stream.state.open import open_store
from k2stream.state.redis import RedisStore
from k2stream.state.server import RedisServer, start_server

WORKER = """
import sys, time
from pathlib import Path
from k2stream.settings import Settings
from k2stream.state.server import start_server
print(start_server(Settings(home=Path(sys.argv[1]))).pid, flush=True)
time.sleep(60)
"""


def started(home: Path) -> RedisServer:
    server = start_server(Settings(home=home))
    assert server is not None
    return server


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_it_dies_with_a_killed_worker_and_leaves_no_obstacle(tmp_path: Path) -> None:
    """kill -9 of the worker ends the server within 2 s; the next worker starts over what is left lying around."""
    with subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert is_alive(pid)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert wait_gone(pid, 2)
    assert (tmp_path / "redis" / "0" / "redis.sock").exists()
    server = started(tmp_path)
    assert server.folder.name == "0"
    server.close()


def test_an_orphan_on_the_socket_is_ended(tmp_path: Path) -> None:
    """Where the kernel does not end it, a dead worker's server is shut down by who holds the folder now."""
    first = started(tmp_path)
    first._lock_file.close()  # as if its worker were dead
    second = started(tmp_path)
    assert wait_gone(first.pid, 5)
    assert is_alive(second.pid)
    assert second.folder == first.folder
    second.close()
    first.close()


def test_two_workers_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two homes, and two workers of one home, have a server each."""
    servers = [started(tmp_path / "a"), started(tmp_path / "b"), started(tmp_path / "a")]
    assert len({s.pid for s in servers}) == len({s.socket_path for s in servers}) == 3
    assert all(is_alive(s.pid) for s in servers)
    for server in servers:
        server.close()
    assert not any(is_alive(s.pid) for s in servers)


def test_only_this_user_can_open_it(tmp_path: Path) -> None:
    """The socket, and the folder it lies in, are of mode 700, and nothing listens on the network."""
    server = started(tmp_path)
    assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    assert [c for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    server.close()


def test_a_long_home_gets_a_short_socket(tmp_path: Path) -> None:
    """A path that the system refuses for a socket does not stop the server; data stay at home."""
    home = tmp_path / ("long" * 25) / "späce d"
    server = started(home)
    assert len(os.fsencode(server.socket_path)) < 100
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    assert (home / "redis" / "0" / "appendonlydir").is_dir()
    server.close()
    assert not server.socket_path.parent.exists()


def test_data_that_cannot_be_loaded_are_thrown_away(tmp_path: Path) -> None:
    """State is expendable: a damaged append-only file costs its contents, not the start."""
    started(tmp_path).close()
    for file in (tmp_path / "redis" / "0" / "appendonlydir").iterdir():
        file.write_bytes(b"no redis file at all")
    server = started(tmp_path)
    assert is_alive(server.pid)
    server.close()


def test_the_store_by_settings(tmp_path: Path) -> None:
    """`redis` starts a server, `memory` none, and a wrong K2_REDIS_SERVER is said at once."""
    store = open_store(Settings(home=tmp_path))
    assert isinstance(store, RedisStore)
    assert store.load([]) == {}
    store.close()
    assert isinstance(open_store(Settings(home=tmp_path, state="memory")), MemoryStore)
    with pytest.raises(SettingsError, match="K2_REDIS_SERVER"):
        open_store(Settings(home=tmp_path, redis_server=str(tmp_path / "none")))


def test_a_machine_without_redis_keeps_state_in_memory(tmp_path: Path) -> None:
    """A binary that does not start is no obstacle: state is kept in memory."""
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert isinstance(open_store(Settings(home=tmp_path / "home", redis_server=str(broken))), MemoryStore)
