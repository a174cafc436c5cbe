"""What every server for development and tests has in common: what it lacks, how it starts, where it answers, how it stops."""

import secrets
import signal
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Self

from k2stream.dev.child import Child
from k2stream.errors import ServiceError, ServiceMissing
from k2stream.settings import Settings
from k2stream.worker_process import free_port

HOST = "127.0.0.1"

TRIES = 3
"""A port that was free may be taken before the server listens on it."""


def versions() -> dict[str, str]:
    """What `make services` builds: name -> pinned version."""
    text = files("k2stream.dev").joinpath("recipes/versions.env").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


class Service(ABC):
    """One server with its data in `folder`; started, asked, stopped. A folder serves one instance at a time."""

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 30.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """What the kernel sends when the parent is gone."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder.absolute()
        self.cache = settings.cache_folder()
        self.port = 0
        self._child: Child | None = None

    @abstractmethod
    def lacks(self) -> str:
        """What this machine needs before it can start; empty if nothing."""

    @abstractmethod
    def prepare(self) -> None:
        """Write what the server reads at its start, for `self.port`; may be called again."""

    @abstractmethod
    def command(self) -> list[str]:
        """What runs in the foreground until it is signalled."""

    @abstractmethod
    def answers(self) -> bool:
        """True once it serves requests; must return within a second or so."""

    @abstractmethod
    def exports(self) -> Mapping[str, str]:
        """The variables that make k2 use it."""

    def environment(self) -> Mapping[str, str]:
        """Variables of the server itself, beside ours."""
        return {}

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server; 0 while none runs."""
        return self._child.pid if self._child else 0

    @property
    def log_path(self) -> Path:
        return self.folder / "server.log"

    def start(self, *, port: int | None = None) -> None:
        """Start it and wait until it answers; on `port`, as the one that it had before, else on a free one.

        Raises ServiceMissing where the machine lacks something, ServiceError with the log's last lines if it does not come up.
        """
        if lacks := self.lacks():
            raise ServiceMissing(self.name, lacks)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(TRIES):
            self.port = port or free_port()
            self.prepare()
            if self._comes_up():
                return
        raise ServiceError(f"{self.name} does not start; {self.log_path} ends with:\n{self._last_lines()}")

    def stop(self) -> None:
        """Stop it in order; its data stays. Twice is harmless."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def kill(self) -> None:
        """End it as a crash would; `start_again` brings it back."""
        child, self._child = self._child, None
        if child is not None:
            child.kill(self.death_signal)

    def start_again(self) -> None:
        """On the port it had, for clients that know no other. Raises ServiceError if it does not come up."""
        self.prepare()
        if not self._comes_up():
            raise ServiceError(f"{self.name} does not start again on {self.address}; {self.log_path} ends with:\n{self._last_lines()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_running(self) -> bool:
        return self._child is not None and self._child.exit_code() is None

    def secret(self) -> str:
        """A password of this folder's own, made once, for nobody else's eyes."""
        path = self.folder / "secret"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16), encoding="ascii")
        return path.read_text(encoding="ascii")

    def _comes_up(self) -> bool:
        self._child = child = Child(
            self.command(),
            folder=self.folder,
            log_path=self.log_path,
            environment=self.environment(),
            stop_signal=self.stop_signal,
            death_signal=self.death_signal,
        )
        until = time.monotonic() + self.start_seconds
        while time.monotonic() < until and child.exit_code() is None:
            if self.answers():
                return child.exit_code() is None
            time.sleep(0.05)
        self.stop()
        return False

    def _last_lines(self, count: int = 8) -> str:
        return "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def ask(port: int, question: bytes, *, seconds: float = 1.0, trust: Path | None = None) -> bytes:
    """The first bytes of a server's answer, over TLS if an authority is named; empty if there is none."""
    try:
        with socket.create_connection((HOST, port), timeout=seconds) as plain:
            link = plain if trust is None else ssl.create_default_context(cafile=trust).wrap_socket(plain, server_hostname=HOST)
            with link:
                link.sendall(question)
                return link.recv(256)
    except OSError:
        return b""
