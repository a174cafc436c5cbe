"""What a process of ours asks of Python and the C library for itself, once, before it computes anything."""

import ctypes
import os
import signal
import sys

import pyarrow as pa

SWITCH_SECONDS = 0.0005
"""A thread that comes back from Arrow waits so long for a thread that runs Python; with Python's 5 ms decode and sink
keep each other waiting through hundreds of short calls, and two cores do little more than one."""

ARENAS = 2
M_ARENA_MAX = -8
PR_SET_PDEATHSIG = 1


def tune_process() -> None:
    """Threads hand over sooner; memory that one thread freed is there for the next.

    A window's memory is taken in the decode thread and freed in the sink thread. With a pool of Arrow's own beside the C
    library's arenas (up to eight a core) each keeps its peak: one pool and two arenas hold some 150 MB less.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    if sys.platform == "linux":
        pa.set_memory_pool(pa.system_memory_pool())
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
        if mallopt is not None:
            mallopt(M_ARENA_MAX, ARENAS)


def serve_parent(nice: int) -> None:
    """Give way to the parent while it lives, and end with it, however it ends (Linux; elsewhere the work is finished first)."""
    os.nice(nice)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
