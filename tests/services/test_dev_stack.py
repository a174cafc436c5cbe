"""`k2 dev`: servers that outlive the command, and are stopped by nobody else's command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from k2stream.dev.service import ask, versions
from k2stream.dev.stack import Stack
from k2stream.settings import Settings

ROOT = Path(__file__).parents[2]


def k2(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("K2_") or name == "K2_CACHE"}
    command = [sys.executable, "-m", "k2stream.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**clean, "K2_HOME": str(home), **environment}, capture_output=True, text=True, check=False, timeout=100)


def dev(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return k2(home, "dev", *arguments, **environment)


def is_alive(pid: int) -> bool:
    """False soon after its end, whoever collects the exit code."""
    try:
        psutil.Process(pid).wait(0.5)
        return False
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.registry
@pytest.mark.redis
def test_up_twice_is_one_server_and_down_stops_it(tmp_path: Path) -> None:
    """The second `up` names the same addresses; `down` ends server and keeper, and leaves another home's alone."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    try:
        first, second, other = dev(ours, "up", "registry", "redis"), dev(ours, "up", "registry", "redis"), dev(others, "up", "registry")
        stack, theirs = Stack(Settings(home=ours)), Stack(Settings(home=others)).running("registry")
        running = [stack.running("registry"), stack.running("redis")]
        assert first.returncode == second.returncode == other.returncode == 0, first.stderr + second.stderr
        assert first.stdout == second.stdout
        assert [line.split("=")[0] for line in first.stdout.splitlines()] == ["export K2_REGISTRY_URL", "export K2_REDIS_URL"]
        assert "registry  answers on" in dev(ours, "status").stdout

        refused = k2(ours, "reset", "--yes")
        assert (refused.returncode, "or a server of `k2 dev`" in refused.stderr) == (1, True)
        assert dev(ours, "down").stdout == "registry stopped\nredis stopped\n"
        assert [found for found in running if found and is_alive(found.pid)] == []
        assert [ask(int(found.address.split(":")[1]), b"PING\r\n") for found in running if found] == [b"", b""]
        assert theirs is not None
        assert is_alive(theirs.pid)
        assert dev(ours, "down").stdout == ""
    finally:
        dev(ours, "down")
        dev(others, "down")


@pytest.mark.registry
def test_killed_keeper_is_forgotten_and_up_starts_anew(tmp_path: Path) -> None:
    """After kill -9 of the keeper `status` says stopped, and what it left in the folder keeps nobody from starting."""
    stack = Stack(Settings(home=tmp_path))
    try:
        assert dev(tmp_path, "up", "registry").returncode == 0
        first = stack.running("registry")
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        assert not is_alive(first.pid)
        assert stack.running("registry") is None
        assert dev(tmp_path, "up", "registry").returncode == 0
        second = stack.running("registry")
        assert second is not None
        assert second.pid != first.pid
    finally:
        dev(tmp_path, "down")


def test_down_believes_no_number_without_its_lock(tmp_path: Path) -> None:
    """A keeper died and another process has its number now: that one is not stopped."""
    folder = tmp_path / "dev" / "registry"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "running.json").write_text(f'{{"pid": {os.getpid()}, "address": "127.0.0.1:1", "exports": {{}}}}')

    assert Stack(Settings(home=tmp_path)).down("registry") is False


def test_up_starts_nothing_if_one_cannot_be_had(tmp_path: Path) -> None:
    """Half a stack is no stack; the sentence names the command that mends it."""
    done = dev(tmp_path / "home", "up", "kafka", "registry", K2_CACHE=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "make services S='kafka registry'" in done.stderr
    assert not (tmp_path / "home").exists()


def test_registry_is_built_as_pinned() -> None:
    """The folder in the cache is named after versions.env, with a count of our own behind it; the build follows go.mod: both say the same."""
    module = (ROOT / "k2stream" / "dev" / "recipes" / "registry" / "go.mod").read_text()
    assert f"require github.com/twmb/franz-go/pkg/sr {versions()['REGISTRY'].partition('-')[0]}\n" in module


def test_unknown_service_is_one_sentence(tmp_path: Path) -> None:
    """A typing mistake is told with the names that there are."""
    done = dev(tmp_path / "home", "up", "kafak")
    assert (done.returncode, done.stderr) == (1, "k2: kafak: no such service; there are kafka, postgres, s3, rest, registry, redis.\n")
