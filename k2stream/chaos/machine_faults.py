"""What can happen to the machine that a worker runs on: its clock jumps, its disk is full."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from k2stream.chaos.crew import Member
from k2stream.chaos.fault import Fault, Hit
from k2stream.chaos.scene import Scene
from k2stream.errors import ServiceError
from k2stream.settings import Settings, process_environment

LIBRARIES = ("/usr/lib", "/usr/local/lib", "/lib")
JUMPS = ("+3000", "+7200", "-7200", "-86400", "+0")
"""Seconds beside the machine's clock; the last is where it ends. A broker refuses records of more than an hour ahead."""
JUMP_SECONDS = 2.5
SLEEP = Path(__file__).parent / "faketime"
"""On that worker's PYTHONPATH."""

DISK_BYTES = 256 << 20
FULL_SECONDS = 4.0
BALLAST_BYTES = 1 << 20


def find_faketime() -> Path | None:
    """libfaketime for programs with threads; None where it is not installed."""
    found = (path for folder in LIBRARIES for path in sorted(Path(folder).glob("*/faketime/libfaketimeMT.so.1")))
    return next(found, None)


def give_clock(member: Member, library: Path) -> Path:
    """Let the worker of a place have a clock of its own from its next start on; the file that moves it."""
    clock = member.folder / f"{member.name}.clock"
    clock.write_text("+0", encoding="ascii")
    # Only what people call the time jumps: the monotonic clock does not jump on a real machine either.
    member.extra |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(SLEEP), process_environment().get("PYTHONPATH")))),
    }
    return clock


def clock_faults(clock: Path, name: str) -> list[Fault]:
    return [Fault("clock jumps", f"the clock of {name} goes 50 minutes and two hours ahead, two hours back, a day back, and home", partial(jump, clock, name))]


def jump(clock: Path, name: str, scene: Scene) -> Hit:
    for offset in JUMPS:
        clock.write_text(offset, encoding="ascii")
        scene.wait(JUMP_SECONDS)
    return Hit(f"{name} by {', '.join(JUMPS)} s", len(JUMPS))


def why_no_small_disk(settings: Settings) -> str:
    """Empty where a small disk can be put under the warehouse."""
    if settings.warehouse:
        return "the warehouse is not a folder of this run"
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a small disk is mounted by root on Linux only"
    return ""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system in memory at `folder`; raises ServiceError if it cannot be mounted."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if said := _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)):
        raise ServiceError(f"No small disk could be mounted on {folder}: {said}")
    try:
        yield
    finally:
        _run("umount", "-l", str(folder))


def _run(*command: str) -> str:
    """What it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 # constant, and a path of ours
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


def disk_faults(folder: Path) -> list[Fault]:
    return [Fault("disk full", f"the warehouse's disk is full for {FULL_SECONDS:.0f} s", partial(fill, folder), weight=2)]


def fill(folder: Path, scene: Scene) -> Hit:
    ballast = folder / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * BALLAST_BYTES)
        scene.wait(FULL_SECONDS)
    finally:
        ballast.unlink(missing_ok=True)
    return Hit(f"for {FULL_SECONDS:.0f} s")
