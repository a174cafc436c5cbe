"""A group of workers under a steady load on a real broker, and who commits which partition when."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2stream.audit import audit_lake
from k2stream.chaos.load import Load
from k2stream.chaos.trades import TradeMaker
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.lake.head import head_at, summary_of
from k2stream.lake.reader import TableReader
from k2stream.lake.summary import WORKER_ID
from k2stream.playback import prepare_topics
from k2stream.records import TopicPartition
from k2stream.transport.ends import ends_of
from k2stream.worker_group import WorkerGroup, partitions_of

ROOT = Path(__file__).parents[2]
PARTITIONS = 8
RATE = 1_000
SESSION_SECONDS = 6.0
QUICK = {
    "K2_PARTITIONS": str(PARTITIONS),
    "K2_SESSION_TIMEOUT_MS": str(int(SESSION_SECONDS * 1000)),
    "K2_WINDOW_MS": "500",
    "K2_FSYNC": "false",
    "K2_LOG_FORMAT": "json",
}
START_SECONDS = 180.0
"""A start imports 5 seconds of CPU, and many run side by side."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Commit:
    """One snapshot: when it was made, by which process, and where it left each partition."""

    at: float
    """Seconds since the epoch."""
    pid: int
    nexts: Mapping[TopicPartition, int]


class Commits:
    """A thread that keeps every commit of a table: snapshots expire."""

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()
        self._seen: list[Commit] = []
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def of(self, tp: TopicPartition, *, since: float, but: int = 0) -> list[float]:
        """Moments at or after `since` at which the partition went on, by any process other than `but`."""
        with self._lock:
            seen = list(self._seen)
        steps = [(after, after.nexts[tp] > before.nexts.get(tp, -1)) for before, after in pairwise(seen) if tp in after.nexts]
        return [commit.at for commit, went_on in steps if went_on and commit.at >= since and commit.pid != but]

    def _watch(self) -> None:
        newest = 0
        while not self._stopping.wait(POLL_SECONDS):
            table = self._reader.load()
            fresh = sorted((s for s in table.snapshots() if (s.sequence_number or 0) > newest), key=lambda s: s.sequence_number or 0)
            newest = max([newest, *(s.sequence_number or 0 for s in fresh)])
            commits = [_commit_of(table, s) for s in fresh]
            with self._lock:
                self._seen += commits


def _commit_of(table: Table, snapshot: Snapshot) -> Commit:
    worker = summary_of(snapshot).get(WORKER_ID, "-0")
    nexts = {tp: entry.next for tp, entry in head_at(table, snapshot.snapshot_id).vector.items()}
    return Commit(snapshot.timestamp_ms / 1000, int(worker.rpartition("-")[2]), nexts)


class Crew:
    """Workers, their load, and what the table says of them."""

    def __init__(self, group: WorkerGroup, load: Load, commits: Commits, topic: str) -> None:
        self.group, self.load, self.commits, self.topic = group, load, commits, topic
        self.tps = [TopicPartition(topic, n) for n in range(PARTITIONS)]

    def owned(self, number: int) -> set[TopicPartition]:
        """What a worker says it reads."""
        return {TopicPartition(p["topic"], p["partition"]) for p in partitions_of(self.group.state(number))}

    def trades(self, number: int) -> dict[str, Any]:  # JSON of /state
        state: dict[str, Any] = (self.group.state(number) or {}).get("trades", {})
        return state

    def settle(self, *numbers: int, seconds: float = 120) -> None:
        """Until the partitions are dealt out among exactly these workers, and all of them are being committed."""

        def is_settled() -> bool:
            owned = [self.owned(number) for number in numbers]
            return sum(map(len, owned)) == PARTITIONS and len(set().union(*owned)) == PARTITIONS and all(owned)

        self.wait(is_settled, seconds, "not dealt out among all workers")
        now = time.time()
        self.wait(lambda: all(self.commits.of(tp, since=now) for tp in self.tps), seconds, "not every partition is committed")

    def seconds_until_others_commit(self, number: int, tps: set[TopicPartition], *, since: float) -> dict[TopicPartition, float]:
        """How long after `since` each of `tps` was first committed by a worker other than `number`."""
        pid = self.group.worker(number).pid
        self.wait(lambda: all(self.commits.of(tp, since=since, but=pid) for tp in tps), 120, f"not all of {sorted(tps)} committed by others")
        return {tp: self.commits.of(tp, since=since, but=pid)[0] - since for tp in tps}

    def longest_silence(self, tp: TopicPartition, *, since: float) -> float:
        """Most seconds that passed from `since` until now without a commit of the partition."""
        moments = [since, *self.commits.of(tp, since=since), time.time()]
        return max(after - before for before, after in pairwise(moments))

    def wait(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"{what} within {seconds:.1f} s\n{self.group.last_lines(15)}"
            time.sleep(POLL_SECONDS)

    def finish(self) -> None:
        """The load ends, everything is committed, the workers stop, and the ledger adds up, once."""
        self.load.stop()
        self.group.wait_until_caught_up(self.ends(), seconds=90)
        for number in self.group.running():
            assert self.group.stop(number) == 0, self.group.worker(number).last_lines(30)
        settings = self.group.settings()
        problems = audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings)).problems
        assert problems == ()
        assert sum(e.counts.rows for e in self.head_vector().values()) > 0

    def ends(self) -> Mapping[TopicPartition, int]:
        return ends_of(self.group.settings(), [self.topic])

    def head_vector(self) -> Mapping[TopicPartition, Any]:
        with closing(TableReader.open_reader(self.group.settings(), "trades")) as reader:
            return dict(reader.head().vector)


@contextmanager
def crew(folder: Path, environment: Mapping[str, str], *, name: str, workers: int, rate: int = RATE) -> Iterator[Crew]:
    """`workers` workers on a new topic `market.crypto.trades.{name}`, and what K2_TOPICS names beside it, caught up with a load that goes on."""
    name = f"{name}{uuid4().hex[:6]}"  # a broker that outlives the test keeps its topics
    topic = f"market.crypto.trades.{name}"
    own = {**QUICK, **environment, "K2_APP_ID": name, "K2_TOPICS": ",".join(filter(None, [topic, environment.get("K2_TOPICS")]))}
    with WorkerGroup(folder, own, root=ROOT) as group:
        settings = group.settings()
        schema_id = prepare_topics(settings, [topic])[topic]
        maker = TradeMaker(name.upper(), prefix=name, partitions=PARTITIONS, schema_id=schema_id, seed=1, now_us=int(time.time() * 1e6))
        load = Load(settings, topic, maker, rate=rate, partitions=PARTITIONS)
        numbers = [group.start() for _ in range(workers)]
        for number in numbers:
            group.worker(number).wait_until_up(START_SECONDS)
        load.start()
        with closing(TableReader.open_reader(settings, "trades")) as reader:
            commits = Commits(reader)
            try:
                this = Crew(group, load, commits, topic)
                this.settle(*numbers)
                yield this
            finally:
                load.stop()
                commits.stop()
