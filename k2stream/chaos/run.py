"""A chaos run from its first worker to its scorecard."""

import logging
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from random import Random

import orjson

from k2stream.chaos.crew import Crew
from k2stream.chaos.detours import Detours
from k2stream.chaos.fault import Fault, Hit
from k2stream.chaos.ground import Ground, clear, prepare, stake_out
from k2stream.chaos.judge import Judge
from k2stream.chaos.load import Load
from k2stream.chaos.plan import Plan, plan
from k2stream.chaos.progress import Progress, Target
from k2stream.chaos.redis_database import RedisDatabase, empty_database
from k2stream.chaos.reference import Reference
from k2stream.chaos.scene import ASK_SECONDS, ChaosError, Scene
from k2stream.chaos.scorecard import Played, Scorecard
from k2stream.chaos.servers import breakable
from k2stream.checkout import find_root
from k2stream.errors import K2Error
from k2stream.home import Home
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.ends import ends_of

RECOVERY_SECONDS = 120.0
"""Longer than anything should take; a machine that is busy with other things takes its time."""
QUIET_SECONDS = 60.0
STOPPED = (0, -signal.SIGTERM)
"""Exit codes of who was asked to end: a worker that is only just starting hears no signal yet, and has nothing to commit."""
COUNTED = ("window.committed", "commit.undecided", "capture.restart", "capture.failed", "state.refused", "state.unsaved", "outbox.postponed")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a run."""

    seed: int = 1
    workers: int = 4
    rate: int = 400
    """Records a second."""
    seconds: float = 300.0
    """Faults are played for so long; the one under way is finished."""
    faults: int = 0
    """... or until there were so many; 0: no bound."""
    only: Sequence[str] = ()
    known: Collection[str] = ()
    """Faults that need not come before any comes twice: an earlier run played them."""
    owned: Sequence[str] = ()
    """Services that may be broken although `k2 dev` did not start them."""
    storm_beats: int = 3
    away_seconds: float = 60.0
    """How long a broker is gone."""
    window_ms: int = 2_000
    session_timeout_ms: int = 6_000
    pace_seconds: float = 8.0
    """The next fault does not wait longer for everybody to be back."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault that was played."""

    fault: Fault
    hit: Hit
    began: float
    ended: float
    target: Target
    """All that was published when it ended."""

    @property
    def back_at(self) -> float | None:
        """When all that was committed; None: not in time, or not yet."""
        reached = self.target.reached_at
        return reached if reached is not None and reached - self.ended <= RECOVERY_SECONDS else None


@dataclass(slots=True)
class Run:
    """What is going on."""

    scene: Scene
    judge: Judge
    load: Load
    say: Say
    began: float
    pace_seconds: float
    happened: list[Happened] = field(default_factory=list)

    def play(self, fault: Fault) -> None:
        """One fault, and some time for everybody to be back; who is not yet meets the next one on the way."""
        scene = self.scene
        for part in (self.load, self.judge):
            if part.failed is not None:
                raise part.failed
        scene.progress.reset_stall()
        began = time.monotonic()
        hit = fault.play(scene)
        ended = time.monotonic()
        this = Happened(fault, hit, began, ended, scene.progress.expect(self.ends()))
        self.happened.append(this)
        scene.until(lambda: this.back_at is not None, self.pace_seconds)
        self.judge.ask()
        back = f"back after {this.back_at - began:.1f} s" if this.back_at else "not back yet"
        self.say(f"{ended - self.began:6.0f} s  {fault.name}: {hit.says}; {back}")

    def ends(self) -> dict[TopicPartition, int]:
        """What is published by now."""
        ground = self.scene.ground
        return ends_of(ground.settings, [ground.topic])


def run(settings: Settings, options: Options, say: Say) -> Scorecard:
    """Play faults for as long as asked; raises K2Error if the run itself cannot go on."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers, mounts and servers are put in order
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that a broker is away is no news here
    if not settings.broker:
        options = replace(options, workers=1)  # the embedded log has one reader
    with ExitStack() as stack:
        stack.enter_context(Home.open(settings.home).hold())
        servers = breakable(settings, tuple(options.owned))
        database = empty_database(settings) if settings.redis_url else None
        changes: dict[str, object] = {"window_ms": options.window_ms, "session_timeout_ms": options.session_timeout_ms}
        ground = stake_out(settings, changes | ({"redis_url": database.url} if database else {}))
        detours = Detours.before(ground.settings, stack)
        crew = Crew(ground.home, find_root(), ground.home, ground.own_names() | detours.environment, workers=options.workers)
        able = plan(
            ground, crew, detours, servers, database, stack, storm_beats=options.storm_beats, away_seconds=options.away_seconds
        ).only(options.only)
        stack.callback(crew.stop)
        this = begin(ground, crew, options, say)
        problems = []
        try:
            for fault in order_of(able.faults, options, this):
                this.play(fault)
        except ChaosError as exc:  # the tables are looked at all the same
            problems.append(str(exc))
        card = scorecard(this, options, able, [*problems, *finish(this)])
        tidy_up(ground, database, card, say)
    if card.is_good:
        shutil.rmtree(ground.home)
    return card


def tidy_up(ground: Ground, database: RedisDatabase | None, card: Scorecard, say: Say) -> None:
    """Leave nothing behind, unless somebody will want to see how it came to be."""
    if not card.is_good:
        say(f"Everything is left as it is, to be looked at: {ground.settings.namespace}.trades, {ground.topic}, {ground.home}.")
        return
    try:
        if database is not None:
            database.wipe()
        clear(ground)
    except K2Error as exc:
        say(f"Not everything could be taken away: {exc}")


def begin(ground: Ground, crew: Crew, options: Options, say: Say) -> Run:
    """Publish, look, judge, and wait until every worker has something to do."""
    maker = prepare(ground, seed=options.seed)
    partitions = ground.settings.partitions
    reference = Reference(maker, ground.topic, exchange=ground.exchange, partitions=partitions, small_rows=ground.settings.gap_small_rows)
    progress = Progress(ground.settings)
    load = Load(ground.settings, ground.topic, maker, rate=options.rate, partitions=partitions)
    judge = Judge(ground.settings, reference)
    scene = Scene(ground, crew, progress, Random(options.seed))  # noqa: S311 # a run must be repeatable
    say(f"table {ground.settings.namespace}.trades, topic {ground.topic}, home {ground.home}")
    for part in (progress, load, judge):
        part.start()
    scene.victims(options.workers)
    return Run(scene, judge, load, say, time.monotonic(), options.pace_seconds)


def order_of(faults: Sequence[Fault], options: Options, this: Run) -> Iterator[Fault]:
    """Every fault once in random order, those left out that are known, then all by weight, until time or count are reached."""

    def is_over() -> bool:
        played = sum(happened.hit.count for happened in this.happened)
        return bool(options.faults and played >= options.faults) or time.monotonic() - this.began > options.seconds

    random = this.scene.random
    first = [fault for fault in faults if fault.name not in options.known]
    for fault in random.sample(first, len(first)):
        if is_over():
            return
        yield fault
    while not is_over():
        yield random.choices(faults, [fault.weight for fault in faults])[0]


def finish(this: Run) -> list[str]:
    """Let everything that was published be committed, stop in good order, and look once more at what is left."""
    problems = []
    scene = this.scene
    this.load.stop()
    scene.until(lambda: len(scene.crew.ready()) == len(scene.crew.members), QUIET_SECONDS, every=ASK_SECONDS)
    target = scene.progress.expect(this.ends())
    if not scene.until(lambda: target.reached_at is not None, RECOVERY_SECONDS):
        problems.append(f"not everything that was published was committed within {RECOVERY_SECONDS:.0f} s")
    sick = [f"{m.name}: {m.state().get('causes')}" for m in scene.crew.members if not scene.until(lambda m=m: m.state().get("healthy") is True, QUIET_SECONDS)]  # type: ignore[misc] # lambda default
    problems += [f"a worker is not healthy at the end: {cause}" for cause in sick]
    problems += [f"{name} ended with code {code}" for name, code in scene.crew.stop().items() if code not in STOPPED]
    this.judge.stop()
    scene.progress.stop()
    this.judge.look(is_final=True)
    return problems


def scorecard(this: Run, options: Options, able: Plan, problems: Sequence[str]) -> Scorecard:
    verdicts = this.judge.verdicts
    final = verdicts[-1]
    names = {happened.fault.name for happened in this.happened}
    unreached = {fault.name: "time was up before its turn" for fault in able.faults if fault.name not in names}
    return Scorecard(
        seed=options.seed,
        seconds=time.monotonic() - this.began,
        workers=options.workers,
        partitions=this.scene.ground.settings.partitions,
        published=this.load.published,
        rows=final.rows,
        lost=final.lost,
        extra=final.extra,
        duplicates_dropped=final.duplicates,
        dead_letters=final.letters,
        gap_events=final.events,
        snapshots=this.scene.progress.sequence_number,
        looks=len(verdicts),
        played=[played_of(this, happened) for happened in this.happened],
        not_played={**able.left_out, **unreached},
        deaths=[f"{d.name} with code {d.code}: {d.says}" for d in this.scene.crew.deaths],
        events=logged(this.scene),
        problems=[*problems, *dict.fromkeys(p for v in verdicts for p in v.problems)],
    )


def played_of(this: Run, happened: Happened) -> Played:
    """With what the first look found that came after everybody was back."""
    verdicts, back_at = this.judge.verdicts, happened.back_at
    return Played(
        name=happened.fault.name,
        count=happened.hit.count,
        hit=happened.hit.says,
        at_seconds=happened.began - this.began,
        fault_seconds=happened.ended - happened.began,
        recovered_seconds=None if back_at is None else back_at - happened.began,
        is_good=next(v.is_good for v in verdicts if v.began >= (back_at or happened.ended) or v is verdicts[-1]),
    )


def logged(scene: Scene) -> dict[str, int]:
    """How often workers logged what matters; lines that a kill cut in half do not count."""
    counts: Counter[str] = Counter()
    for member in scene.crew.members:
        with member.log_path.open("rb") as lines:
            for line in lines:
                if line.startswith(b"{"):
                    try:
                        counts[orjson.loads(line).get("event", "")] += 1
                    except orjson.JSONDecodeError:
                        continue
    return {event: counts[event] for event in COUNTED}
