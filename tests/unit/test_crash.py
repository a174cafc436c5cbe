"""Orders to die at a step: by a setting, or left in a file while the worker runs."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from k2stream.crash import on_step_of
on_step = on_step_of(sys.argv[1])
for line in sys.stdin:
    on_step(line.strip())
    print("passed", line.strip(), flush=True)
"""
KILLED = -9


def passed(crash_at: str, *steps: str) -> tuple[int, list[str]]:
    """Exit code, and the steps that were passed alive."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, crash_at], input="\n".join(steps), capture_output=True, text=True, timeout=60)
    return done.returncode, [line.removeprefix("passed ") for line in done.stdout.splitlines()]


def test_dies_the_second_time_it_passes_the_step() -> None:
    """Neither earlier nor one line later."""
    assert passed("3.before:2", "3.before", "3.after", "3.before", "3.after") == (KILLED, ["3.before", "3.after"])


def test_an_order_left_in_a_file_is_met_once_and_taken_away(tmp_path: Path) -> None:
    """Or the next worker in its place would die of it too."""
    order = tmp_path / "order"
    assert passed(f"@{order}", "decode", "3.before") == (0, ["decode", "3.before"])
    order.write_text("3.before\n")
    assert passed(f"@{order}", "decode", "3.before") == (KILLED, ["decode"])
    assert not order.exists()
