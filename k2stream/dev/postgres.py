"""A PostgreSQL cluster from the system's package; with a password of its own, on TCP only."""

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import HOST, Service
from k2stream.errors import ServiceError
from k2stream.settings import Settings

DEBIAN = Path("/usr/lib/postgresql")
USER = DATABASE = "k2"
INITDB_SECONDS = 60.0

# What is not on loopback has no business here; durability stays on, for tests kill the server.
OPTIONS = {"listen_addresses": HOST, "unix_socket_directories": "", "max_connections": "50", "shared_buffers": "32MB", "log_min_messages": "warning"}


class Postgres(Service):
    """Refuses to run as root: then it runs as an ordinary user who may still read and write the given folder."""

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: does not wait for clients
    death_signal = signal.SIGQUIT  # at once, but its own processes and shared memory go too

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.binaries = _find_binaries()
        self.data = self.folder / "data"

    def lacks(self) -> str:
        if self.binaries is None:
            return "PostgreSQL (initdb and postgres)"
        return "setpriv" if os.geteuid() == 0 and shutil.which("setpriv") is None else ""

    def prepare(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)  # an initdb that was interrupted
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = _ordinary_user()
            os.chown(self.data, user.pw_uid, user.pw_gid)
        self.secret()
        self._initdb()

    def _initdb(self) -> None:
        options = ["--username", USER, "--pwfile", str(self.folder / "secret"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        command = [*self._as_ordinary_user(), self._binary("initdb"), "--pgdata", str(self.data), *options]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=INITDB_SECONDS, check=False)  # noqa: S603 # constant
        if done.returncode:
            raise ServiceError(f"postgres cannot make {self.data}: {done.stderr.strip() or done.stdout.strip()}")

    def command(self) -> list[str]:
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        return [*self._as_ordinary_user(), self._binary("postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def _as_ordinary_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        user = _ordinary_user()
        # The right to pass root's own folders on the way to its data. A change of user clears the signal, so it is set again.
        return [
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            f"--pdeathsig={self.death_signal.name.removeprefix('SIG')}",
        ]

    def _binary(self, name: str) -> str:
        return str((self.binaries or Path()) / name)

    def answers(self) -> bool:
        command = [self._binary("pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-U", USER, "-d", "postgres", "-t", "1"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 # constant

    def exports(self) -> Mapping[str, str]:
        return {"K2_CATALOG_URI": f"postgresql+psycopg://{USER}:{self.secret()}@{self.address}/postgres"}


def _find_binaries() -> Path | None:
    """The newest of Debian's, else where initdb on the PATH lies."""
    homes = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])])
    found = homes[-1] if homes else shutil.which("initdb")
    folder = Path(found).resolve().parent if found else None
    return folder if folder and (folder / "postgres").exists() and (folder / "pg_isready").exists() else None


def _ordinary_user() -> pwd.struct_passwd:
    """The package's own user, else nobody."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
