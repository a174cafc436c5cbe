"""A million trades of 50 symbols with numbers removed, out of order, doubled and reset, read by workers that are killed.

    python -m tests.bench.gap_storm [--rows 1000000] [--kills 20] [--seed 6] [--out build/gap_storm.json]

Gap events, rows, ledger and letters must equal what the oracle says record by record; exit code 1 if anything differs. Takes some
ten minutes: most of it is workers that start.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from k2stream.logs import set_up_logs
from k2stream.settings import Settings
from tests.bench.worker_run import ROOT
from tests.consistency.storm import weather

ENVIRONMENT = {"K2_WINDOW_ROWS": "10000", "K2_WINDOW_MS": "300", "K2_FETCH_BUFFER_BYTES": "1000000", "K2_FSYNC": "false", "K2_LOG_FORMAT": "json"}
"""Windows small enough that a million trades make a hundred commits and more."""
SECONDS = 900.0


def main(arguments: list[str] | None = None) -> int:
    """Run, write the file, print it; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gap_storm.json")
    options = parser.parse_args(arguments)
    set_up_logs(Settings(log_level="warning"))
    with tempfile.TemporaryDirectory() as folder:
        outcome = weather(
            Path(folder) / "home",
            options.rows,
            kills=options.kills,
            seed=options.seed,
            environment=ENVIRONMENT,
            seconds=SECONDS,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    verdict = outcome.verdict
    said = {
        "records": outcome.records,
        "rows": verdict.rows,
        "duplicates": verdict.duplicates,
        "dead_letters": verdict.letters,
        "gap_events": verdict.events,
        "kinds": outcome.kinds(),
        "causes": outcome.causes(),
        "troubles": dict(outcome.troubles),
        "kills": outcome.kills,
        "seconds": round(outcome.seconds, 1),
        "problems": verdict.problems,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(said, indent=2))
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
