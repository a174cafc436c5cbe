"""A replay at its worst: letters of mixed reasons, mended, replayed again and again, killed at random, while feeds go on."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from k2stream.deadletter.replay import sent_of
from k2stream.deadletter.standing import DeadLetters
from k2stream.decode.registry import open_registry
from k2stream.feed.avro import encode_one
from k2stream.feed.publisher import partition_of
from k2stream.home import Home
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics
from k2stream.query.engine import Engine
from k2stream.query.letters import Selection, State
from k2stream.rows import avro_schema, body_schema
from k2stream.settings import Settings
from k2stream.testing import trade_rows
from k2stream.topics import TopicName
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_topics
from k2stream.transport.sink import Outgoing
from tests.consistency.harness import KILLED, ROOT, Site, wait_until_caught_up

TOPIC = "market.equities.trades.asx"
LATER_SCHEMA_ID = 2
"""The contract is 1; what is registered next gets this."""
ATTEMPTS = 3
HOUR_US = 3_600_000_000
EVENT_US = 1_394_400_000_000_000
STEPS = ("replay.began", "replay.sent", "replay.written", "replay.published")
COMMANDS_A_KILL = 8
"""A replay that is over before the step of its death leaves letters for the next one."""
SMALL = {"K2_WINDOW_MS": "300", "K2_FSYNC": "false", "K2_PARTITIONS": "4", "K2_REPLAY_ATTEMPTS": str(ATTEMPTS)}
ROWS_BY_ID = "SELECT trade_id, count(*) AS rows FROM read_parquet($files, hive_partitioning = false) GROUP BY trade_id"


@dataclass(slots=True)
class Result:
    """What a course came to."""

    letters: int
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    twice_in_topic: int = 0
    """(first_origin, attempt) pairs that stand more than once in the topic."""
    states: Counter[str] = field(default_factory=Counter)
    hopeless_attempts: Counter[int] = field(default_factory=Counter)
    live_rows: int = 0
    problems: tuple[str, ...] = ()


class Course:
    """One home, from its bad records to the verdict."""

    def __init__(self, home: Path, *, letters: int, seed: int) -> None:
        os.environ.pop("K2_CRASH_AT", None)
        self.home, self.letters, self.random = home, letters, random.Random(seed)
        self.settings = Settings(home=home, fsync=False, partitions=4, replay_attempts=ATTEMPTS)
        Home.open(home)
        self.schema_id = prepare_topics(self.settings, [TOPIC])[TOPIC]
        self.rows = trade_rows(self._row(i) for i in range(letters)).select(body_schema("trade_v2").names).to_pylist()
        self.hopeless = set(range(7, letters, max(8, letters // 20)))
        self.edited = next(i for i in range(letters) if i not in self.hopeless)
        self.live: list[str] = []
        self._stop = threading.Event()

    def _row(self, i: int) -> dict[str, object]:
        symbol = f"S{i % 40:02}"
        return {"trade_id": f"T-{i}", "message_id": f"m{i}", "symbol": symbol, "source_sequence": None, "timestamp": EVENT_US + i}

    def _value(self, i: int) -> bytes:
        """A third names a schema that comes later, two thirds lie two hours ahead; some can never be mended, one has no price."""
        row = self.rows[i]
        if i in self.hopeless:
            return b"\x09" + encode_one(row, schema="trade_v2", schema_id=self.schema_id)[1:]
        if i == self.edited:
            return encode_one({**row, "price": Decimal(0)}, schema="trade_v2", schema_id=self.schema_id)
        if i % 3 == 0:
            return encode_one(row, schema="trade_v2", schema_id=LATER_SCHEMA_ID)
        ahead = row["timestamp"].replace(hour=(row["timestamp"].hour + 2) % 24)
        return encode_one({**row, "timestamp": ahead}, schema="trade_v2", schema_id=self.schema_id)

    def publish_bad(self) -> None:
        asyncio.run(self._publish([(self.rows[i]["symbol"], self._value(i)) for i in range(self.letters)]))

    async def _publish(self, records: list[tuple[str, bytes]]) -> None:
        sink, by_place = open_sink(self.settings), dict[int, list[Outgoing]]()
        for symbol, value in records:
            by_place.setdefault(partition_of(symbol.encode(), 4), []).append(Outgoing(symbol.encode(), value, EVENT_US // 1000))
        for place, outgoing in by_place.items():
            for first in range(0, len(outgoing), 500):
                await sink.send(TOPIC, place, outgoing[first : first + 500])
        await sink.close()

    def mend(self) -> str:
        """Register the missing schema, edit one; the rule is relaxed in the worker's settings. Gives the id of the edited one."""
        later = {**avro_schema("trade_v2"), "doc": "The same, registered later."}
        assert open_registry(self.settings).register(f"{TopicName.parse(TOPIC).subject}-later", later) == LATER_SCHEMA_ID
        with DeadLetters(self.settings) as letters:
            found = letters.chosen(Selection(reasons=["price_must_be_positive"]))
            assert found is not None
            record: str = found["id"][0].as_py()
        done = self.k2("edit", record, "--set", "price=35.12")
        assert done.returncode == 0, done.stderr
        return record

    def k2(self, *arguments: str, crash_at: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **SMALL, "K2_HOME": str(self.home), "K2_CRASH_AT": crash_at}
        return subprocess.run(
            [sys.executable, "-m", "k2stream.cli", "dlq", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def feed_on(self) -> None:
        """Live trades into the same partitions until `stop_feed`."""

        def feed() -> None:
            number = 0
            while not self._stop.wait(0.05):
                rows = trade_rows({**self._row(i), "trade_id": f"L-{i}"} for i in range(number, number + 20))
                number += 20
                plain = rows.select(body_schema("trade_v2").names).to_pylist()
                asyncio.run(self._publish([(r["symbol"], encode_one(r, schema="trade_v2", schema_id=self.schema_id)) for r in plain]))
                self.live += [r["trade_id"] for r in plain]

        self._feed = threading.Thread(target=feed, name="live")
        self._feed.start()

    def stop_feed(self) -> None:
        self._stop.set()
        self._feed.join()

    def verdict(self, kills: int) -> Result:
        result = Result(self.letters, kills, live_rows=len(self.live))
        with closing(TableReader.open_reader(self.settings, "trades")) as trades, Engine() as engine, DeadLetters(self.settings) as letters:
            head = trades.head()
            found = engine.ask(ROWS_BY_ID, files=trades.files(head.snapshot_id)).to_pylist() if head.snapshot_id else []
            rows = {row["trade_id"]: row["rows"] for row in found}
            standing = letters.chosen(Selection())
        assert standing is not None
        wanted = [f"T-{i}" for i in range(self.letters) if i not in self.hopeless] + self.live
        result.lost = [id for id in wanted if id not in rows]
        result.doubled = [id for id, count in rows.items() if count > 1] + [id for id in rows if id not in set(wanted)]
        result.states = Counter(standing["state"].to_pylist())
        result.hopeless_attempts = Counter(row["attempt"] for row in standing.to_pylist() if row["reason"] == "bad_magic")
        pairs = Counter((s.first_origin, s.attempt) for record in read_topics(self.settings, [TOPIC]) if (s := sent_of(record)))
        result.twice_in_topic = sum(count > 1 for count in pairs.values())
        result.problems = Site(self.home, {}).problems()
        return result


def run(home: Path, *, letters: int, kills: int, seed: int = 1) -> Result:
    """Letters, mend, kills, two whole replays, then what cannot be mended until it is parked; what came of it all."""
    course = Course(home, letters=letters, seed=seed)
    course.publish_bad()
    site = Site(home, SMALL)
    site.run_until_caught_up(300)
    course.mend()
    worker = site.worker(K2_MAX_AHEAD_MS=str(6 * HOUR_US // 1000))
    killed = 0
    try:
        worker.wait_until_up()
        course.feed_on()
        for _ in range(COMMANDS_A_KILL * kills):
            if killed == kills:
                break
            step = course.random.choice(STEPS)
            number = course.random.randint(1, 3) if step == "replay.sent" else 1
            some = ("--limit", str(max(8, letters // (COMMANDS_A_KILL * kills))), "--rate", str(letters), "--wait", "0")
            done = course.k2("replay", "--publish", *some, crash_at=f"{step}:{number}")
            killed += done.returncode == KILLED
            assert done.returncode in (KILLED, 0), done.stderr
        for _ in range(ATTEMPTS):  # twice would do for those that pass; the others are parked on the way
            done = course.k2("replay", "--publish", "--rate", "5000", "--wait", "240")
            assert done.returncode == 0, done.stderr
        course.stop_feed()
        deadline = time.monotonic() + 120
        while (worker.state() or {}).get("trades", {}).get("lag", 1) and time.monotonic() < deadline:
            time.sleep(0.1)
        wait_until_caught_up(worker, 240)
        done = course.k2("replay", "--publish")
        assert done.stdout.startswith("published 0 "), done.stdout
        assert worker.stop() == 0, worker.last_lines(20)
    finally:
        course._stop.set()
        worker.stop()
    return course.verdict(killed)


def faults_of(result: Result) -> list[str]:
    """What does not hold, in words."""
    hopeless = sum(result.hopeless_attempts.values())
    expected = Counter({State.SUPERSEDED.value: result.letters - hopeless, State.PARKED.value: hopeless})
    checks = {
        f"{len(result.lost)} rows are missing, such as {result.lost[:3]}": bool(result.lost),
        f"{len(result.doubled)} rows are there twice, such as {result.doubled[:3]}": bool(result.doubled),
        f"{result.twice_in_topic} attempts were published twice": bool(result.twice_in_topic),
        f"states are {dict(result.states)}, expected {dict(expected)}": result.states != expected,
        f"what cannot be mended died {dict(result.hopeless_attempts)} times, expected {ATTEMPTS}": set(result.hopeless_attempts) != {ATTEMPTS},
        f"the audit finds {result.problems}": bool(result.problems),
    }
    return [sentence for sentence, is_wrong in checks.items() if is_wrong]
