"""`make bench-replay`: 10,000 letters of mixed reasons, mended, replayed under 20 kills and live traffic; then the rate that a replay keeps."""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.consistency.replay_course import faults_of, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2-replay-") as folder:
        started = time.monotonic()
        result = run(Path(folder) / "k2", letters=options.letters, kills=options.kills, seed=options.seed)
    said = {**asdict(result), "seconds": round(time.monotonic() - started, 1), "faults": faults_of(result)}
    said["hopeless_attempts"] = {str(k): v for k, v in result.hopeless_attempts.items()}
    Path("build").mkdir(exist_ok=True)
    Path("build/replay.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(said, indent=2) + "\n")
    return 1 if said["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
