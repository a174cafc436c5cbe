"""A log in which nothing is in order, workers that die while they read it, and the verdict on what they wrote.

Of 50 symbols numbers are removed, come late (a few trades, or thousands later: in another window, session or life of a worker), come
shuffled, come again and again, begin anew with and without a word, are missing or stand in records that cannot be read. What the
tables must hold says k2stream.chaos.check, record by record, with the oracle of gaps.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from random import Random

from k2stream.chaos.check import Verdict, check
from k2stream.chaos.reference import Reference
from k2stream.chaos.trades import Step, Symbol, TradeMaker, names_on
from k2stream.feed.publisher import partition_of
from k2stream.home import Home
from k2stream.playback import prepare_topics
from k2stream.settings import Settings
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.sink import Outgoing
from tests.consistency.harness import Site

TOPIC, EXCHANGE = "market.crypto.trades.storm", "STORM"
PARTITIONS, SYMBOLS = 8, 50
BATCH_RECORDS, STEPS = 400, 20_000

SHARES = {
    "removed": 0.01,
    "delayed": 0.01,
    "shuffled": 0.004,
    "again": 0.03,
    "second_feed": 0.01,
    "range": 0.0002,
    "null": 0.001,
    "spoiled": 0.0003,
    "reconnect": 0.0004,
    "session": 0.0004,
    "silence": 0.0003,
}
TROUBLES, WEIGHTS = (*SHARES, "none"), (*SHARES.values(), 1 - sum(SHARES.values()))
REMOVED = (1, 1, 1, 2, 3, 9, 10, 11, 40)
DELAYS = (1, 2, 5, 30, 300, 3000, 20_000)
"""Steps of all symbols together, at most."""

Say = Callable[[str], None]


class StormMaker(TradeMaker):
    """The records of a chaos run, with far more and far worse disorder."""

    def __init__(self, *, schema_id: int, seed: int, now_us: int) -> None:
        super().__init__(EXCHANGE, prefix="storm", partitions=PARTITIONS, schema_id=schema_id, seed=seed, now_us=now_us)
        self.symbols = [Symbol(name) for name in names_on(PARTITIONS, SYMBOLS // PARTITIONS + 1)[:SYMBOLS]]
        self.troubles: Counter[str] = Counter()
        self._step = 0
        self._delayed: list[tuple[int, int]] = []
        """Heap of the step at which a row goes out, and its index."""

    def _steps(self, symbol: Symbol, rows: list[dict[str, object]]) -> Iterator[Step]:
        self._step += 1
        trouble = self._random.choices(TROUBLES, WEIGHTS)[0]
        self.troubles[trouble] += 1
        match trouble:
            case "removed":
                for _ in range(self._random.choice(REMOVED)):
                    self._next(symbol)
            case "delayed":
                due = self._step + self._random.randint(1, self._random.choice(DELAYS))
                heappush(self._delayed, (due, self._row(rows, symbol.name, *self._next(symbol))))
            case "shuffled":
                block = [self._row(rows, symbol.name, *self._next(symbol)) for _ in range(self._random.randint(2, 30))]
                yield from self._random.sample(block, len(block))
            case _:
                yield from self._trouble(trouble, symbol, rows)
        while self._delayed and self._delayed[0][0] <= self._step:
            yield heappop(self._delayed)[1]


def publish(settings: Settings, rows: int, *, seed: int, now_us: int) -> StormMaker:
    """Fill the topic with at least `rows` trades; records with something else in them have log batches of their own, as feeds send them."""
    Home.open(settings.home)
    schema_id = prepare_topics(settings, [TOPIC])[TOPIC]
    maker = StormMaker(schema_id=schema_id, seed=seed, now_us=now_us)
    log = EmbeddedLog(settings.home / "log")
    waiting: defaultdict[int, list[Outgoing]] = defaultdict(list)
    while len(maker.known) < rows:
        for record in maker.take(min(STEPS, rows - len(maker.known)), now_us // 1000):
            waiting[partition_of(record.key or b"", PARTITIONS)].append(record)
        log.append_many([(TOPIC, p, build_log_batch(batch)) for p, records in waiting.items() for batch in _batches(records, maker.spoiled)])
        waiting.clear()
    log.close()
    return maker


def _batches(records: Sequence[Outgoing], spoiled: set[bytes]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    for record in records:
        is_plain = record.value is not None and record.value not in spoiled
        if batch and (not is_plain or len(batch) == BATCH_RECORDS):
            yield batch
            batch = []
        if is_plain:
            batch.append(record)
        else:
            yield [record]
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a storm came to."""

    verdict: Verdict
    reference: Reference
    troubles: Mapping[str, int]
    kills: int
    records: int
    seconds: float

    def kinds(self) -> Counter[str]:
        """How many events of each kind there had to be."""
        return Counter(str(event["kind"]) for event in self.reference.events(self.verdict.vector))

    def causes(self) -> Counter[str]:
        return Counter(str(event["cause"]) for event in self.reference.events(self.verdict.vector))


def weather(home: Path, rows: int, *, kills: int, seed: int, environment: Mapping[str, str], seconds: float, say: Say = lambda _: None) -> Outcome:
    """Publish a storm, let workers read it that die with SIGKILL at random points of their progress, and judge the tables.

    Every second death takes what Redis held along: the next worker knows what the tables and their tracker files tell.
    """
    settings = Settings(home=home, partitions=PARTITIONS, topics=TOPIC)
    maker = publish(settings, rows, seed=seed, now_us=time.time_ns() // 1000)
    records = _records(settings)
    say(f"{records:,} records published, {len(maker.known):,} of them trades")
    random, site = Random(seed), Site(home, {**environment, "K2_TOPICS": TOPIC})
    began = time.monotonic()
    for number, share in enumerate(sorted(random.random() for _ in range(kills))):
        at = _run_until(site, int(share * records), seconds)
        say(f"worker {number + 1} of {kills} killed when {at:,} records were committed")
        if number % 2:
            site.wipe_redis()
    site.run_until_caught_up(seconds)
    spent = time.monotonic() - began
    say(f"caught up after {spent:.0f} s")
    reference = Reference(maker, TOPIC, exchange=EXCHANGE, partitions=PARTITIONS, small_rows=settings.gap_small_rows)
    verdict = check(settings, reference, is_final=True)
    read = sum(entry.next for entry in verdict.vector.values())
    assert read == records, f"the table ends at {read:,} of {records:,} records; {home / 'worker.log'} says why"
    return Outcome(verdict, reference, maker.troubles, kills, records, spent)


def _run_until(site: Site, committed: int, seconds: float) -> int:
    """A worker, killed without warning once the table has come so far; how far it had come."""
    worker = site.worker()
    try:
        worker.wait_until_up(seconds)
        deadline, done = time.monotonic() + seconds, -1
        while done < committed and time.monotonic() < deadline:
            assert worker.exit_code() is None, worker.last_lines(30)
            trades = (worker.state() or {}).get("trades", {})
            done = sum(p["next"] for p in trades.get("partitions", []))
            if trades.get("partitions") and not trades["lag"]:
                break
            time.sleep(0.02)
        return done
    finally:
        worker.kill()


def _records(settings: Settings) -> int:
    log = EmbeddedLog(settings.home / "log")
    try:
        return sum(end - begin for tp, (begin, end) in log.all_bounds().items() if tp.topic == TOPIC)
    finally:
        log.close()
