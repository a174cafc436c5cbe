"""Die at a named step, for crash tests and chaos runs: a real SIGKILL, not an exception."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

ORDERED_IN = "@"


def on_step_of(crash_at: str) -> Callable[[str], None]:
    """What is told each step's name; sends this process a signal the N-th time it hears `STEP` of `STEP:N:SIGNAL`.

    N is 1 and the signal SIGKILL where they are left out; SIGSTOP makes a zombie of a worker, which others take for dead.
    `@FILE`: looks at each step if FILE is there by now and holds such words, takes it away and counts from there.
    """
    if not crash_at:
        return _go_on
    if crash_at.startswith(ORDERED_IN):
        return _Ordered(Path(crash_at.removeprefix(ORDERED_IN)))
    return _Crash(crash_at)


class _Crash:
    """One order."""

    def __init__(self, order: str) -> None:
        self._step, times, name = [*order.strip().split(":"), "", ""][:3]
        self._left, self._signal = int(times or 1), signal.Signals[name or "SIGKILL"]

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                signal.pthread_kill(threading.get_ident(), self._signal)  # for the whole process, and not one line later


class _Ordered:
    """The newest order that was left in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._crash: _Crash | None = None

    def __call__(self, step: str) -> None:
        try:
            order = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            order = ""
        if order:
            self._path.unlink(missing_ok=True)
            self._crash = _Crash(order)
        if self._crash is not None:
            self._crash(step)


def _go_on(step: str) -> None:
    """Nobody asked for a crash."""
