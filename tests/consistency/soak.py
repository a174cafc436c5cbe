"""`make soak`: twenty minutes of `k2 chaos` on servers of its own, and what came of it in docs/results/soak.md.

Played in rounds, each with a table, a topic and workers of its own: after every fault all rows are compared, and a table of twenty
minutes would make the looks slower than the faults.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from k2stream.chaos.run import Options, run
from k2stream.chaos.scorecard import Played, Scorecard
from k2stream.dev.stack import Stack
from k2stream.settings import load_settings

SERVICES = ("kafka", "postgres", "s3", "registry", "redis")
REPORT = Path(__file__).parents[2] / "docs" / "results" / "soak.md"
ROUND_MINUTES = 5.0
PACE_SECONDS = 3.0
"""The next fault does not wait longer for everybody to be back, so several are under way at once: 300 in twenty minutes."""
ON_FILES = 4
"""Every so many-th round keeps its tables in a folder, so that a disk can be full."""

INTRODUCTION = """\
# Soak

`{command}` on {machine}, {when}. Workers, Kafka, PostgreSQL, S3, Redis, the registry, the load and the checks share that machine.

{rounds} rounds of {minutes:.0f} minutes, each with {workers} workers, {partitions} partitions, a session timeout of 6 s, and a table and topic of its own.
Trades come at {rate} a second, with duplicates, gaps, late rows, resets, markers and records that must become dead letters. After each fault one
snapshot is audited (`k2 audit`), and compared row by row, letter by letter and gap event by gap event with what the log says was published.
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=int, default=400, help="records a second")
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the broker is gone")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args(arguments)
    rounds = max(1, round(given.minutes / ROUND_MINUTES))
    cards: list[Scorecard] = []
    with tempfile.TemporaryDirectory(prefix="k2-soak-") as folder:
        for number in range(rounds):
            known = {p.name for card in cards for p in card.played}
            cards.append(play(Path(folder), given, number, 60 * given.minutes / rounds, known))
    given.report.write_text("\n".join(report(cards, given)) + "\n", encoding="utf-8")
    say(f"written to {given.report}")
    return 0 if all(card.is_good for card in cards) else 1


def play(folder: Path, given: argparse.Namespace, number: int, seconds: float, known: Collection[str]) -> Scorecard:
    """One round on servers that know nothing of the one before."""
    os.environ["K2_HOME"] = str(folder / f"round-{number}")
    names = [name for name in SERVICES if name != "s3" or (number + 1) % ON_FILES]
    for variable in ("K2_WAREHOUSE", "AWS_ENDPOINT_URL"):
        os.environ.pop(variable, None)
    stack = Stack(load_settings())
    try:
        for name in names:
            os.environ.update(stack.up(name).exports)
        options = Options(
            seed=given.seed + number,
            workers=given.workers,
            rate=given.rate,
            seconds=seconds,
            away_seconds=given.away,
            known=known,
            pace_seconds=PACE_SECONDS,
        )
        card = run(load_settings(), options, say)
        say("\n".join(card.lines()))
        return card
    finally:
        for name in names:
            stack.down(name)


def report(cards: Sequence[Scorecard], given: argparse.Namespace) -> Iterator[str]:
    """The page, line by line."""
    first, played = cards[0], [p for card in cards for p in card.played]
    facts = {"rounds": len(cards), "minutes": given.minutes / len(cards), "workers": first.workers, "partitions": first.partitions, "rate": given.rate}
    command = f"make soak ARGS=\"--minutes {given.minutes:g} --seed {given.seed}\""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    yield INTRODUCTION.format(command=command, machine=machine, when=f"{datetime.now(UTC):%Y-%m-%d}", **facts)
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {value} |" for name, value in totals(cards, played).items())
    yield "\n## Faults\n"
    yield "*back*: from the fault's beginning until all that was published up to its end was committed, the fault's own length included.\n"
    yield "| fault | times | played | good | back, median s | longest s |\n|---|---:|---:|---:|---:|---:|"
    yield from (line_of(name, [p for p in played if p.name == name]) for name in sorted({p.name for p in played}))
    yield "\n## Not run\n"
    names = {p.name for p in played}
    reasons = {name: why for name, why in first.not_played.items() if name not in names and all(name in card.not_played for card in cards)}
    yield from (f"- {name}: {why}" for name, why in sorted(reasons.items())) if reasons else ["Nothing was left out."]
    yield "\n## What workers logged\n"
    yield from (f"- `{event}`: {sum(card.events[event] for card in cards):,}" for event in first.events)
    deaths = [death for card in cards for death in card.deaths]
    yield f"\nWorkers that ended although nobody broke them, and were started again: {len(deaths)}."
    yield from (f"- {death.splitlines()[-1]}" for death in deaths)
    problems = [problem for card in cards for problem in card.problems]
    yield "\n## Problems\n"
    yield from (f"- {problem}" for problem in problems or ["none"])


def totals(cards: Sequence[Scorecard], played: Sequence[Played]) -> dict[str, str]:
    """The whole run in a few numbers."""
    kills = [p.recovered_seconds for p in played if p.name == "kill" and p.recovered_seconds is not None]
    stops = [p.recovered_seconds for p in played if p.name == "stop" and p.recovered_seconds is not None]
    return {
        "faults": f"{sum(card.faults for card in cards):,}",
        "records published": f"{sum(card.published for card in cards):,}",
        "rows": f"{sum(card.rows for card in cards):,}",
        "**rows lost**": f"**{sum(card.lost for card in cards)}**",
        "**rows too many**": f"**{sum(card.extra for card in cards)}**",
        "duplicates dropped": f"{sum(card.duplicates_dropped for card in cards):,}",
        "dead letters": f"{sum(card.dead_letters for card in cards):,}",
        "gap events": f"{sum(card.gap_events for card in cards):,}",
        "snapshots": f"{sum(card.snapshots for card in cards):,}",
        "looks, each at one snapshot": f"{sum(card.looks for card in cards):,}",
        "after a kill -9 all is committed again, median and longest": _seconds(kills),
        "after a planned stop": _seconds(stops),
        "verdict": "exactly once" if all(card.is_good for card in cards) else "**NOT good, see below**",
    }


def line_of(name: str, played: Sequence[Played]) -> str:
    back = [p.recovered_seconds for p in played if p.recovered_seconds is not None]
    times = f"{median(back):.1f} | {max(back):.1f}" if back else "never | "
    good = sum(p.is_good and p.recovered_seconds is not None for p in played)
    return f"| {name} | {sum(p.count for p in played)} | {len(played)} | {good} | {times} |"


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.1f} s, {max(values):.1f} s" if values else "not played"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
