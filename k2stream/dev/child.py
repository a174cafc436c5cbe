"""A server as a child process: its output in a file, stopped by signal, dead as soon as its parent is (Linux)."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from k2stream.settings import process_environment

STOP_SECONDS = 15.0

_DIE_WITH_PARENT = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[2]))\n"  # PR_SET_PDEATHSIG; stays over execv
    "os.getppid()==int(sys.argv[1]) or sys.exit(1)\n"
    "os.execvp(sys.argv[3],sys.argv[3:])\n"
)


class Child:
    """One running server. The kernel ends it when the thread that made it ends: make it from one that lives as long as it shall."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log_path: Path,
        environment: Mapping[str, str],
        stop_signal: signal.Signals,
        death_signal: signal.Signals,
    ) -> None:
        self._stop_signal = stop_signal
        with log_path.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 # a server of ours and its constant arguments
                [*_dying_with_parent(death_signal), *command],
                cwd=folder,
                env={**process_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl-C is for whoever started it, who then stops it in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self._process.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """The server's own orderly signal, and SIGKILL for all of its session if it does not end in time."""
        if self.exit_code() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def kill(self, number: signal.Signals) -> None:
        """A signal that it does not survive; returns once it and what it started are gone."""
        if self.exit_code() is None:
            self._process.send_signal(number)
        self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _dying_with_parent(death_signal: signal.Signals) -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), str(int(death_signal))]
