"""Die at a named step, for crash tests and chaos runs: a real SIGKILL, not an exception."""

import signal
import threading
from collections.abc import Callable


def on_step_of(crash_at: str) -> Callable[[str], None]:
    """What is told each step's name; sends this process a signal the N-th time it hears `STEP` of `STEP:N:SIGNAL`.

    N is 1 and the signal SIGKILL where they are left out; SIGSTOP makes a zombie of a worker, which others take for dead.
    """
    if not crash_at:
        return _go_on
    step, times, name = [*crash_at.split(":"), "", ""][:3]
    left, chosen = int(times or 1), signal.Signals[name or "SIGKILL"]

    def die_there(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                signal.pthread_kill(threading.get_ident(), chosen)  # for the whole process, and not one line later

    return die_there


def _go_on(name: str) -> None:
    """Nobody asked for a crash."""
