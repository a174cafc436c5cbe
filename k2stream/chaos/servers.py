"""Servers that a run may break: those that `k2 dev` started, and those on this machine that the user says are theirs."""

import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from k2stream.dev.keeper import BRING_UP, TAKE_DOWN
from k2stream.dev.stack import Stack
from k2stream.errors import ServiceError, SettingsError
from k2stream.object_store import ObjectStore
from k2stream.settings import Settings

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.05


class Server(Protocol):
    """One that can go away and come back at the same address, with its data."""

    @property
    def how(self) -> str:
        """What going away is: `killed`, `stopped`."""

    def take_down(self) -> None: ...
    def bring_up(self) -> None: ...


@dataclass(frozen=True, slots=True)
class KeptServer:
    """One of `k2 dev`: it dies as by a crash, and its keeper starts it again."""

    name: str
    keeper_pid: int
    address: str
    how: str = "killed"

    def take_down(self) -> None:
        os.kill(self.keeper_pid, TAKE_DOWN)
        self._wait(lambda: not listens(self.address), "die")

    def bring_up(self) -> None:
        os.kill(self.keeper_pid, BRING_UP)
        self._wait(lambda: listens(self.address), "come back")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > until:
                raise ServiceError(f"{self.name} at {self.address} did not {what} within {WAIT_SECONDS:.0f} s; its keeper is process {self.keeper_pid}.")
            time.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class OwnedServer:
    """A process of the user's own: it sleeps (SIGSTOP) and wakes up (SIGCONT), which loses nothing."""

    pid: int
    how: str = "stopped"

    def take_down(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def bring_up(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def addresses(settings: Settings) -> dict[str, str]:
    """`host:port` of each service that the settings name."""
    urls = {
        "kafka": settings.broker.split(";")[0].split(",")[0],
        "catalog": settings.catalog_uri if "://" in settings.catalog_uri and not settings.catalog_uri.startswith("sqlite") else "",
        "redis": settings.redis_url,
        "s3": ObjectStore.of(settings).endpoint if settings.warehouse.startswith("s3") else "",
        "registry": settings.registry_url,
    }
    return {name: address_of(url) for name, url in urls.items() if url}


DEFAULT_PORTS: Mapping[str, int] = {"redis": 6379, "rediss": 6379, "http": 80, "https": 443, "k2kafka": 9092, "postgresql": 5432}


def address_of(url: str) -> str:
    """`host:port` of a URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme.split('+')[0], 0)}"


def breakable(settings: Settings, owned: tuple[str, ...]) -> dict[str, Server]:
    """Service -> server that may be broken. Raises SettingsError if one that is said to be owned cannot be found here."""
    where = addresses(settings)
    if unknown := sorted(set(owned) - where.keys()):
        raise SettingsError(f"--i-own-this {', '.join(unknown)}: the settings name no such service. They name: {', '.join(where) or 'none'}.")
    stack = Stack(settings)
    kept = {running.address: running for name in ("kafka", "postgres", "redis", "s3", "rest") if (running := stack.running(name)) is not None}
    found: dict[str, Server] = {}
    for name, address in where.items():
        if address in kept:
            found[name] = KeptServer(name, kept[address].pid, address)
        elif name in owned:
            found[name] = OwnedServer(listener_on(name, address))
    return found


def listener_on(name: str, address: str) -> int:
    """The process of this machine that listens at an address (Linux). Raises SettingsError if it is none that may be signalled."""
    host, port = address.rsplit(":", 1)
    inodes = {
        line.split()[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in _lines(Path(table))
        if line.split()[3] == "0A" and int(line.split()[1].rsplit(":", 1)[1], 16) == int(port)
    }
    for process in Path("/proc").glob("[0-9]*"):
        if any(_points_to(link, inodes) for link in _entries(process / "fd")):
            return int(process.name)
    raise SettingsError(f"--i-own-this {name}: no process of yours listens on port {port} of this machine ({host}), so it cannot be stopped and continued.")


def _lines(table: Path) -> list[str]:
    return table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # another user's, or gone
        return []


def _points_to(link: Path, inodes: set[str]) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False
    return target.startswith("socket:[") and target[8:-1] in inodes


def listens(address: str) -> bool:
    """True if somebody takes connections there."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
