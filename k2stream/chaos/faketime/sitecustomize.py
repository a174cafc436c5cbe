"""For a worker whose clock jumps only: libfaketime 0.9.10 answers EINVAL to the clock_nanosleep of Python's own time.sleep."""

import select
import time


def sleep(seconds: float) -> None:
    """As time.sleep, by another call of the system."""
    select.select((), (), (), seconds)


time.sleep = sleep  # type: ignore[assignment] # it takes floats only, which is all that there is
