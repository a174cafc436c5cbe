"""One demo from an empty or earlier home to its balance sheet."""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson
from rich.console import Console

from k2stream.audit import audit_lake
from k2stream.checkout import find_root
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.demo.found import find
from k2stream.demo.progress import Watcher
from k2stream.demo.sheet import Line, lines_of, show_answers, show_faults, show_next, show_sheet, total
from k2stream.demo.truth import Truth, truth_of_files, truth_of_recordings
from k2stream.errors import HomeError, K2Error
from k2stream.feed import faults as troubles
from k2stream.feed import recorded
from k2stream.feed.recorded import Script
from k2stream.feed.recording import MessageIds
from k2stream.home import Home
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics, publish, recorded_trades
from k2stream.query.engine import Engine
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.ends import ends_of
from k2stream.worker_process import WorkerProcess

WINDOW_MS = 1_000
"""A demo's windows close after a second, unless K2_WINDOW_MS says otherwise: something is to be seen."""

PAGE_WIDTH = 120
CATCH_UP_SECONDS = 600.0
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Run:
    """What is played; a home holds one kind of run."""

    rows: int | None
    seed: int | None
    """None: without faults."""


@dataclass(slots=True)
class Publishing:
    """The publisher's thread: how far it is, and how it ended."""

    total: int
    done: int = 0
    error: K2Error | None = None
    thread: threading.Thread | None = field(default=None)

    def advance(self, count: int) -> None:
        self.done += count

    def is_over(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()


def run(settings: Settings, *, faults: bool, seed: int, headless: bool, fresh: bool, rows: int | None) -> int:
    """Play the recorded ticks through the log, a worker and the tables; 0 if every figure is right, else 1.

    May be killed at any moment and run again: it publishes everything again, and what is in the table already is a duplicate.
    """
    console, root, home = Console(soft_wrap=True, width=None if sys.stdout.isatty() else PAGE_WIDTH), find_root(), Home.open(settings.home)
    if fresh:
        home.reset()
    with home.hold():
        this = Run(rows, seed if faults else None)
        is_first_run = _remember(settings, this)
        scripts, schema_ids, truth = _prepare(settings, this)
        environment = {} if "window_ms" in settings.model_fields_set else {"K2_WINDOW_MS": str(WINDOW_MS)}
        with WorkerProcess(home=home.path, root=root, log_path=home.path / "worker.log", environment=environment) as worker:
            _play(settings, console, worker, scripts, schema_ids, is_live=not headless)
            worker.stop()
        lines = _report(settings, console, truth, sorted(schema_ids), is_first_run=is_first_run)
    wrong = [line.what for line in lines if not line.is_right]
    if wrong:
        console.print(f"\n[red]{len(wrong)} figures are wrong[/]: {', '.join(wrong)}. The worker's log is {home.path / 'worker.log'}.")
        return 1
    return 0


def _remember(settings: Settings, this: Run) -> bool:
    """Write down what the home is played with; True for its first run. Raises HomeError if it holds a run of another kind."""
    path = settings.home_path("demo.json")
    said = {"rows": this.rows, "seed": this.seed}
    if not path.exists():
        if this.seed is not None and settings.home_path("catalog.db").exists():
            raise HomeError(f"{settings.home_path()} holds trades already, and faults are counted on an empty home only. Add --fresh to start over.")
        path.write_bytes(orjson.dumps(said))
        return True
    before = orjson.loads(path.read_bytes())
    if before != said or this.seed is not None:
        played = "with faults" if before["seed"] is not None else "without faults"
        many = f"{before['rows']:,} ticks" if before["rows"] else "all ticks"
        raise HomeError(f"{settings.home_path()} holds a demo of {many} {played}; another would mix with it. Add --fresh to start over.")
    return False


def _prepare(settings: Settings, this: Run) -> tuple[list[Script], dict[str, int], Truth]:
    recordings = recorded_trades(settings, rows=this.rows)
    schema_ids = prepare_topics(settings, [r.topic for r in recordings])
    if this.seed is not None:
        scripts, injected = troubles.inject(recordings, seed=this.seed, schema_ids=schema_ids, ids=MessageIds(uuid4()))
        return scripts, schema_ids, truth_of_recordings(recordings, injected)
    truth = truth_of_files() if this.rows is None else truth_of_recordings(recordings)
    return [recorded.script(r) for r in recordings], schema_ids, truth


def _play(
    settings: Settings, console: Console, worker: WorkerProcess, scripts: Sequence[Script], schema_ids: Mapping[str, int], *, is_live: bool
) -> None:
    """Publish while the worker reads; returns once the table holds the whole log."""
    publishing = Publishing(sum(s.records for s in scripts))
    publishing.thread = threading.Thread(target=_publish, args=(settings, publishing, scripts, schema_ids), name="publish", daemon=True)
    with Watcher(console, total=publishing.total, is_live=is_live) as watcher:
        worker.wait_until_up()
        publishing.thread.start()
        _follow(settings, worker, publishing, watcher, list(schema_ids))


def _publish(settings: Settings, publishing: Publishing, scripts: Sequence[Script], schema_ids: Mapping[str, int]) -> None:
    try:
        publish(settings, scripts, schema_ids, progress=publishing.advance)
    except K2Error as exc:
        publishing.error = exc


def _follow(settings: Settings, worker: WorkerProcess, publishing: Publishing, watcher: Watcher, topics: Sequence[str]) -> None:
    """Show what the worker says until its table has passed every offset that was published."""
    ends: Mapping[TopicPartition, int] | None = None
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < deadline:
        if publishing.error is not None:
            raise publishing.error
        if worker.exit_code() is not None:
            raise K2Error(f"The worker ended with code {worker.exit_code()}; its log, {worker.log_path}, ends with:\n{worker.last_lines()}")
        if ends is None and publishing.is_over():
            ends = ends_of(settings, topics)
        state = (worker.state() or {}).get("trades")
        if state is not None:
            watcher.show(publishing.done, state)
            if ends is not None and _has_passed(state, ends):
                return
        time.sleep(POLL_SECONDS)
    raise K2Error(f"The worker did not catch up within {CATCH_UP_SECONDS:.0f} s; its log is {worker.log_path}.")


def _has_passed(state: Mapping[str, Any], ends: Mapping[TopicPartition, int]) -> bool:
    """`state` is JSON of `/state`."""
    reached = {(p["topic"], p["partition"]): p["next"] for p in state["partitions"]}
    return all(reached.get(tp, 0) >= end for tp, end in ends.items() if end)


def _report(settings: Settings, console: Console, truth: Truth, topics: Sequence[str], *, is_first_run: bool) -> list[Line]:
    report = audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings))
    with (
        closing(TableReader.open_reader(settings, "trades")) as trades_reader,
        closing(TableReader.open_reader(settings, "gaps")) as gaps_reader,
        Engine.of(settings) as engine,
    ):
        head = trades_reader.head()
        gaps_snapshot = gaps_reader.load().current_snapshot()
        trades = trades_reader.files(head.snapshot_id) if head.snapshot_id is not None else []
        gaps = gaps_reader.files(gaps_snapshot.snapshot_id) if gaps_snapshot is not None else []
        found = find(settings, engine, trades, gaps, topics)
        ledger = total(head.vector)
        lines = lines_of(truth, found, ledger, report, is_first_run=is_first_run)
        if truth.injected is not None:
            show_faults(console, truth.injected)
        console.print()
        show_sheet(console, lines, ledger, sum(e.next - e.start for e in head.vector.values()))
        show_answers(console, engine, trades)
    show_next(console, settings)
    return lines
