"""The workers of a chaos run: as many as were asked for, each started again when it ends, however it ends."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from k2stream.records import TopicPartition
from k2stream.worker_group import WorkerGroup, partitions_of
from k2stream.worker_process import WorkerProcess

log = structlog.get_logger(__name__)

LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that ended although nobody broke it."""

    at: float
    """Monotonic seconds."""
    name: str
    code: int
    says: str


@dataclass(slots=True)
class Member:
    """One place of the crew and the worker that fills it now."""

    name: str
    folder: Path
    process: WorkerProcess | None = None
    is_away: bool = False
    """True while its place is to stay empty."""
    is_expected_to_end: bool = False
    starts: int = 0
    extra: dict[str, str] = field(default_factory=dict)
    """Variables of its next worker."""

    @property
    def order(self) -> Path:
        """Where it is told at which step to die."""
        return self.folder / f"{self.name}.order"

    @property
    def log_path(self) -> Path:
        """Of all workers that ever filled it."""
        return self.folder / f"{self.name}.log"

    def is_alive(self) -> bool:
        return self.process is not None and self.process.exit_code() is None

    def state(self) -> dict[str, Any]:
        """JSON of `/state`; empty while it does not answer."""
        return (self.process.state() if self.process is not None and self.is_alive() else None) or {}

    def partitions(self) -> set[TopicPartition]:
        """What it owns and commits, by its own word."""
        return {TopicPartition(p["topic"], p["partition"]) for p in partitions_of(self.state())}


class Crew:
    """A group of workers, by their places. Everything is done by the thread that made it: a worker dies with the thread that started it."""

    def __init__(self, folder: Path, root: Path, home: Path, environment: Mapping[str, str], *, workers: int) -> None:
        self._group = WorkerGroup(folder, environment, root=root, home=home)
        self._numbers: dict[str, int] = {}
        """Of the group's workers, by their places' names."""
        self.members = [Member(f"worker-{n}", folder) for n in range(workers)]
        self.deaths: list[Death] = []
        """Ends that nobody caused; a crew without any is what is hoped for."""
        self.starts = 0

    def tend(self) -> None:
        """Fill every empty place that is not to stay empty."""
        for member in self.members:
            if member.process is not None and not member.is_alive():
                self._bury(member)
            if member.process is None and not member.is_away:
                self.start(member)

    def start(self, member: Member) -> None:
        """A new worker in its place."""
        environment = {**member.extra, "K2_CRASH_AT": f"@{member.order}"}
        if member.name in self._numbers:
            self._group.start_again(self._numbers[member.name], **environment)
        else:
            self._numbers[member.name] = self._group.start(**environment)
        member.process = self._group.worker(self._numbers[member.name])
        member.is_away = member.is_expected_to_end = False
        member.starts += 1
        self.starts += 1

    def _bury(self, member: Member) -> None:
        process, member.process = member.process, None
        code = process.exit_code() if process is not None else None
        member.order.unlink(missing_ok=True)
        if process is not None and code is not None and not member.is_expected_to_end:
            self.deaths.append(Death(time.monotonic(), member.name, code, process.last_lines(LAST_LINES)))
            log.warning("chaos.worker_ended", worker=member.name, code=code, says=self.deaths[-1].says)

    def ready(self) -> list[Member]:
        """Those that own partitions now."""
        return [member for member in self.members if not member.is_away and member.partitions()]

    def kill(self, member: Member) -> None:
        """SIGKILL; its place is filled again by the next `tend`."""
        member.is_expected_to_end = True
        if member.process is not None:
            member.process.kill()

    def signal(self, member: Member, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGTERM: nothing is waited for."""
        if member.process is not None and member.is_alive():
            os.kill(member.process.pid, number)

    def order(self, member: Member, crash_at: str) -> None:
        """Let it die by itself at `STEP` or `STEP:N`."""
        member.is_expected_to_end = True
        aside = member.order.with_suffix(".new")
        aside.write_text(crash_at, encoding="ascii")
        aside.rename(member.order)

    def take_back(self, member: Member) -> None:
        """The order, if it was not met."""
        member.order.unlink(missing_ok=True)
        member.is_expected_to_end = False

    def send_away(self, member: Member) -> None:
        """A planned stop (SIGTERM) that is not waited for; its place stays empty until it is called back."""
        member.is_away = member.is_expected_to_end = True
        self.signal(member, signal.SIGTERM)

    def stop(self) -> dict[str, int]:
        """Stop all at once, in good order; exit codes by name."""
        for member in self.members:
            member.is_away = member.is_expected_to_end = True
            self.signal(member, signal.SIGCONT)
            self.signal(member, signal.SIGTERM)
        return {member.name: member.process.stop() for member in self.members if member.process is not None}
