"""`python -m k2stream.dev.keeper NAME FOLDER`: the parent of one server of `k2 dev`, alive as long as it shall run.

It holds FOLDER/lock as long as it lives and writes FOLDER/running.json once the server answers: a process id there is
the keeper's if, and only if, somebody holds the lock. Killed by -9, it takes its server with it (Linux).
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from k2stream.dev.services import SERVICES
from k2stream.errors import K2Error
from k2stream.settings import load_settings

LOCK, RUNNING = "lock", "running.json"
LOOK_SECONDS = 0.2


class Stopped(BaseException):
    """Somebody asked it to stop, perhaps while the server was still starting."""


def keep(name: str, folder: Path) -> int:
    """Run the server until SIGTERM; exit code 1 if it does not start or ends by itself."""
    signal.signal(signal.SIGTERM, _stop)
    service = SERVICES[name](folder, load_settings())
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0  # another keeper was faster
        try:
            service.start()
            _announce(folder, {"pid": os.getpid(), "address": service.address, "exports": dict(service.exports())})
            while service.is_running():
                time.sleep(LOOK_SECONDS)
            return 1
        except Stopped:
            return 0
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            service.stop()
            (folder / RUNNING).unlink(missing_ok=True)


def _stop(*_: object) -> None:
    raise Stopped


def _announce(folder: Path, said: dict[str, object]) -> None:
    """Written aside and renamed, so that nobody reads half of it; holds passwords, so for the user alone."""
    aside = folder / f"{RUNNING}.new"
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_text(json.dumps(said), encoding="utf-8")
    aside.rename(folder / RUNNING)


if __name__ == "__main__":
    try:
        sys.exit(keep(sys.argv[1], Path(sys.argv[2])))
    except K2Error as exc:
        sys.exit(f"{exc}")
