"""Workers of one consumer group on one machine: each a process with a port and log of its own, all on one log, table and state."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2stream.errors import K2Error
from k2stream.home import Home
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.worker_process import WorkerProcess

POLL_SECONDS = 0.05


class WorkerGroup:
    """Workers 0, 1, 2... under `folder`; what they share is named by `environment`.

    Where it names no catalog, warehouse or registry, they share SQLite, a folder and a schema file under `folder/shared`. Log and Redis have
    to be named (K2_BROKER, K2_REDIS_URL): one process at a time reads the embedded log, and a worker's own Redis is its own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, root: Path, home: Path | None = None) -> None:
        """`root`: the folder in which Faust finds `agents`; `home`: that of all workers, and nothing else is shared; without it each has its own."""
        self.folder, self.root, self.home = folder.absolute(), root, home
        self.shared = home or Home.open(self.folder / "shared").path
        tables = {"K2_CATALOG_URI": f"sqlite:///{self.shared / 'catalog.db'}", "K2_WAREHOUSE": str(self.shared / "warehouse")}
        self.environment = {**({} if home else tables), **environment}
        self._workers: list[WorkerProcess] = []
        self._suspended: set[int] = set()

    def __enter__(self) -> "WorkerGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, **changes: Any) -> Settings:  # any field's value
        """Settings of whoever writes to the workers' log or reads their tables in this process."""
        named = {name.removeprefix("K2_").lower(): value for name, value in self.environment.items() if name.startswith("K2_")}
        return Settings(**{"home": self.shared, **named, **changes})

    def start(self, **environment: str) -> int:
        """Start one more worker; returns its number at once."""
        self._workers.append(self._process(len(self._workers), environment))
        return len(self._workers) - 1

    def start_again(self, number: int, **environment: str) -> None:
        """A new process for a worker that ended, in its old home."""
        if self._workers[number].exit_code() is None:
            raise K2Error(f"worker {number} still runs; stop or kill it first.")
        self._suspended.discard(number)
        self._workers[number] = self._process(number, environment)

    def worker(self, number: int) -> WorkerProcess:
        return self._workers[number]

    def running(self) -> list[int]:
        """Numbers of the workers whose process lives, suspended or not."""
        return [n for n, worker in enumerate(self._workers) if worker.exit_code() is None]

    def kill(self, number: int) -> None:
        """SIGKILL; returns when it is gone."""
        self._workers[number].kill()
        self._suspended.discard(number)

    def stop(self, number: int) -> int:
        """SIGTERM; its exit code once it ended."""
        return self._workers[number].stop()

    def suspend(self, number: int) -> None:
        """SIGSTOP: others will take it for dead, and it does not know."""
        self._suspended.add(number)
        os.kill(self._workers[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        self._suspended.discard(number)
        os.kill(self._workers[number].pid, signal.SIGCONT)

    def state(self, number: int) -> dict[str, Any] | None:  # JSON of /state
        """None while its page does not answer, and of a suspended one."""
        return None if number in self._suspended else self._workers[number].state()

    def positions(self, data_type: str = "trades") -> dict[TopicPartition, int]:
        """Per partition the newest committed offset that any running worker which reads it tells of."""
        found: dict[TopicPartition, int] = {}
        for number in self.running():
            for p in partitions_of(self.state(number), data_type):
                tp = TopicPartition(p["topic"], p["partition"])
                found[tp] = max(p["next"], found.get(tp, 0))
        return found

    def wait_until_caught_up(self, ends: Mapping[TopicPartition, int], *, seconds: float = 60, data_type: str = "trades") -> None:
        """Until every partition is committed up to its offset in `ends`; raises K2Error with what is missing."""
        until = time.monotonic() + seconds
        missing = dict(ends)
        while missing:
            positions = self.positions(data_type)
            missing = {tp: end for tp, end in ends.items() if positions.get(tp, -1) < end}
            if missing and time.monotonic() > until:
                some = ", ".join(f"{t}/{p} is at {positions.get(TopicPartition(t, p))} of {end}" for (t, p), end in sorted(missing.items())[:8])
                raise K2Error(f"not caught up within {seconds:.0f} s: {some}\n{self.last_lines()}")
            time.sleep(POLL_SECONDS)

    def last_lines(self, count: int = 8) -> str:
        """What each worker said last."""
        return "\n".join(f"worker {n}:\n{worker.last_lines(count)}" for n, worker in enumerate(self._workers))

    def close(self) -> None:
        """End all of them in order; a suspended one is woken for it."""
        for number in self.running():
            self.resume(number)
            os.kill(self._workers[number].pid, signal.SIGTERM)
        for number in self.running():
            self.stop(number)

    def _process(self, number: int, environment: Mapping[str, str]) -> WorkerProcess:
        own = {**self.environment, **environment}
        if self.home is not None:
            return WorkerProcess(home=self.home, root=self.root, log_path=self.folder / f"worker-{number}.log", environment=own)
        home = Home.open(self.folder / f"worker-{number}").path
        schemas = home / "schemas"
        if "K2_REGISTRY_URL" not in self.environment and not schemas.is_symlink():
            schemas.symlink_to(self.shared / "schemas")
        return WorkerProcess(home=home, root=self.root, log_path=home / "worker.log", environment=own)


def partitions_of(state: Mapping[str, Any] | None, data_type: str = "trades") -> list[dict[str, Any]]:  # JSON of /state
    """The partitions that a worker says it reads; none before its first assignment."""
    found: list[dict[str, Any]] = (state or {}).get(data_type, {}).get("partitions", [])
    return found
