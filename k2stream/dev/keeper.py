"""`python -m k2stream.dev.keeper NAME FOLDER`: the parent of one server of `k2 dev`, alive as long as it shall run.

It holds FOLDER/lock, so that a folder has one keeper, and the home, so that `k2 reset` is refused. Once the server answers
it puts FOLDER/running.json there and keeps that file locked: what it says is so if, and only if, somebody holds its lock.
Killed by -9, it takes its server with it (Linux).

SIGUSR1 kills the server and leaves it dead, SIGUSR2 starts it again on its port: `k2 chaos` does that, and what FOLDER/running.json says
stays so meanwhile.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from k2stream.dev.service import Service
from k2stream.dev.services import SERVICES
from k2stream.errors import K2Error
from k2stream.home import Home
from k2stream.settings import load_settings

LOCK, RUNNING = "lock", "running.json"
LOOK_SECONDS = 0.2

TAKE_DOWN, BRING_UP = signal.SIGUSR1, signal.SIGUSR2


class Stopped(BaseException):
    """Somebody asked it to stop, perhaps while the server was still starting."""


def keep(name: str, folder: Path) -> int:
    """Run the server until SIGTERM; exit code 1 if it does not start or ends by itself."""
    signal.signal(signal.SIGTERM, _stop)
    told: deque[int] = deque()
    for number in (TAKE_DOWN, BRING_UP):  # done in `_watch`, for neither may come in the middle of a start; servers do not inherit handlers
        signal.signal(number, lambda number, _: told.append(number))
    settings = load_settings()
    service = SERVICES[name](folder, settings)
    with Home.open(settings.home).hold(), (folder / LOCK).open("a") as lock, ExitStack() as announced:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0  # another keeper was faster
        try:
            service.start()
            announced.enter_context(_announced(folder, {"pid": os.getpid(), "address": service.address, "exports": dict(service.exports())}))
            _watch(service, told)
            return 1
        except Stopped:
            return 0
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            service.stop()
            (folder / RUNNING).unlink(missing_ok=True)


def _watch(service: Service, told: deque[int]) -> None:
    """Returns when the server ended by itself."""
    is_down = False
    while is_down or service.is_running():
        time.sleep(LOOK_SECONDS)
        while told:
            if told.popleft() == TAKE_DOWN:
                service.kill()
                is_down = True
            elif is_down:
                service.start_again()
                is_down = False


def _stop(*_: object) -> None:
    raise Stopped


def _announced(folder: Path, said: dict[str, object]) -> IO[str]:
    """Locked and written aside, then renamed: nobody reads half of it, nor takes a dead keeper's for ours. Holds passwords."""
    aside = folder / f"{RUNNING}.new"
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    file = aside.open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(json.dumps(said))
    file.flush()
    aside.rename(folder / RUNNING)
    return file


if __name__ == "__main__":
    try:
        sys.exit(keep(sys.argv[1], Path(sys.argv[2])))
    except K2Error as exc:
        sys.exit(f"{exc}")
