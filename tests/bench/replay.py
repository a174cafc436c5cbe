"""`make bench-replay`: 10,000 letters of mixed reasons, mended, replayed under 20 kills and live traffic; then the rates that replays keep."""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

from k2stream.deadletter.replay import FIRST_ORIGIN_HEADER
from k2stream.transport.reader import read_topics
from tests.consistency.harness import Site
from tests.consistency.replay_course import SMALL, TOPIC, Course, faults_of, run

RATES, RATE_SECONDS = (100, 1_000), 6
TOLERANCE = 0.1


def rate_kept(home: Path, rate: int) -> float:
    """Letters a second that a replay published which was told `rate`, by the times of their records."""
    course = Course(home, letters=rate * RATE_SECONDS, seed=1)
    course.publish_bad()
    Site(home, SMALL).run_until_caught_up(300)
    done = course.k2("replay", "--publish", "--rate", str(rate), "--wait", "0")
    assert done.returncode == 0, done.stderr
    times_ms = [record.timestamp_ms for record in read_topics(course.settings, [TOPIC]) if any(name == FIRST_ORIGIN_HEADER for name, _ in record.headers)]
    assert len(times_ms) == course.letters
    # The last record has its share of a second behind it, too.
    return len(times_ms) / ((max(times_ms) - min(times_ms)) / 1000 + 1 / rate)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2-replay-") as folder:
        started = time.monotonic()
        result = run(Path(folder) / "k2", letters=options.letters, kills=options.kills, seed=options.seed)
        kept = {rate: round(rate_kept(Path(folder) / f"rate{rate}", rate), 1) for rate in RATES}
    missed = [f"told {rate} letters a second, a replay published {found}" for rate, found in kept.items() if abs(found / rate - 1) > TOLERANCE]
    said = {f.name: getattr(result, f.name) for f in fields(result)}  # asdict takes a Counter's items for its elements
    said |= {"seconds": round(time.monotonic() - started, 1), "rates_kept": kept, "faults": faults_of(result) + missed}
    Path("build").mkdir(exist_ok=True)
    Path("build/replay.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(said, indent=2) + "\n")
    return 1 if said["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
