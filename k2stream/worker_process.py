"""A worker as a child process: started, asked, stopped; it dies with its parent."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from k2stream.errors import K2Error
from k2stream.settings import process_environment

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class WorkerProcess:
    """`faust -A agents worker`, or another application's, in a process of its own; its output goes to `log_path`."""

    def __init__(self, *, home: Path, root: Path, log_path: Path, environment: Mapping[str, str] | None = None, application: str = "agents") -> None:
        self.port = free_port()
        self.log_path = log_path
        env = {**process_environment(), "K2_HOME": str(home), "K2_WEB_PORT": str(self.port), "K2_REPLAY_WEB_PORT": str(self.port), **(environment or {})}
        command = [sys.executable, "-m", "faust", "-A", application, "worker", "-l", "info"]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 # our own interpreter and constant arguments
                command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
            )

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self._process.poll()

    def state(self) -> dict[str, Any] | None:  # JSON of /state
        """What `/state` says; None while the page does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/state", timeout=5) as answer:
                state: dict[str, Any] = orjson.loads(answer.read())
                return state
        except (urllib.error.URLError, OSError, orjson.JSONDecodeError):
            return None

    def wait_until_up(self, seconds: float = START_SECONDS) -> dict[str, Any]:  # JSON of /state
        """The first state of a worker whose start has succeeded; raises K2Error with the log's last lines if there is none."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.exit_code() is not None:
                raise K2Error(f"the worker ended with code {self.exit_code()}:\n{self.last_lines()}")
            state = self.state()
            if state is not None and state["started"]:
                return state
            time.sleep(0.1)
        raise K2Error(f"the worker did not start on port {self.port} within {seconds:.0f} s:\n{self.last_lines()}")

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Exit code once it ended."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if it does not end in time."""
        if self.exit_code() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                return self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def last_lines(self, count: int = 8) -> str:
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-count:])


def _die_with_parent() -> None:
    """Linux only: the kernel ends the child when its parent is gone; elsewhere the parent's signal handler does."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
