"""The servers of `k2 dev`: started for a developer, kept under K2_HOME/dev, stopped only if started here."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from k2stream.dev.keeper import LOCK, RUNNING
from k2stream.dev.services import SERVICES
from k2stream.errors import ServiceError
from k2stream.home import Home
from k2stream.settings import Settings

START_SECONDS = 200.0
"""Three tries of the slowest server; one that fails says so at once."""

STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """One server that a keeper runs."""

    name: str
    pid: int
    """Of its keeper."""

    address: str
    exports: Mapping[str, str]
    """Variables that make k2 use it."""


class Stack:
    """Every server of one home."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.home_path("dev")

    def lacking(self, names: Sequence[str]) -> dict[str, str]:
        """What the machine lacks for which of them."""
        lacks = {name: SERVICES[name](self.folder / name, self.settings).lacks() for name in names}
        return {name: what for name, what in lacks.items() if what}

    def up(self, name: str) -> Running:
        """Start it unless it runs; returns once it answers. Raises ServiceMissing or ServiceError."""
        Home.open(self.settings.home)
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-m", "k2stream.dev.keeper", name, str(folder)]
        with (folder / "keeper.log").open("wb") as log:
            keeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 # ourselves
        try:
            return self._once_up(name, keeper)
        except BaseException:  # Ctrl-C too: an attempt that nobody waits for ends
            keeper.terminate()
            raise

    def _once_up(self, name: str, keeper: subprocess.Popen[bytes]) -> Running:
        folder = self.folder / name
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if found := self.running(name):
                return found
            if keeper.poll():
                said = (folder / "keeper.log").read_text(encoding="utf-8", errors="replace").strip()
                raise ServiceError(said or f"{name} does not start; see {folder / 'server.log'}")
            time.sleep(0.05)
        raise ServiceError(f"{name} did not start within {START_SECONDS:.0f} s; see {folder / 'server.log'}.")

    def down(self, name: str) -> bool:
        """Stop it and wait; False if none ran. Raises ServiceError if it does not end."""
        found = self.running(name)
        if found is None:
            return False
        os.kill(found.pid, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            if not self._is_kept(name):
                return True
            time.sleep(0.05)
        raise ServiceError(f"{name} did not stop within {STOP_SECONDS:.0f} s; its keeper is process {found.pid}.")

    def running(self, name: str) -> Running | None:
        """The server that runs, None if none does or it does not answer yet."""
        path = self.folder / name / RUNNING
        try:
            with path.open(encoding="utf-8") as file:
                if not _is_held(file):
                    return None
                said = json.load(file)
        except FileNotFoundError:
            return None
        return Running(name, said["pid"], said["address"], said["exports"])

    def _is_kept(self, name: str) -> bool:
        """True while a keeper lives, its server answering or not."""
        try:
            with (self.folder / name / LOCK).open() as lock:
                return _is_held(lock)
        except FileNotFoundError:
            return False


def _is_held(file: IO[str]) -> bool:
    """True while a keeper holds its lock; the kernel lets go of it however the keeper ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
