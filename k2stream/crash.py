"""Die at a named step, for crash tests and chaos runs: a real SIGKILL, not an exception."""

import os
import signal
from collections.abc import Callable


def on_step_of(crash_at: str) -> Callable[[str], None]:
    """What is told each step's name; kills this process at the N-th time (default first) it hears `STEP` of `STEP:N`."""
    if not crash_at:
        return _go_on
    step, _, times = crash_at.partition(":")
    left = int(times or 1)

    def die_there(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return die_there


def _go_on(name: str) -> None:
    """Nobody asked for a crash."""
