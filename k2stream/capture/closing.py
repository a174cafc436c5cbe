"""A closed window's way into the table; every function blocks and runs in the sink thread, one window at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from numpy.typing import NDArray

from k2stream import metrics
from k2stream.capture.edges import Edges, Head, Staged
from k2stream.capture.restore import Memory, floor_without_keys
from k2stream.capture.stages import Stages
from k2stream.clock import Deadline
from k2stream.deadletter.envelope import letter_of
from k2stream.deadletter.rows import letter_rows
from k2stream.dedup.seen import RecentWindows
from k2stream.errors import K2Error, StateError
from k2stream.lake.offsets import Mark
from k2stream.lake.window import Window
from k2stream.pipeline import Asked, Settled, ask, settle
from k2stream.quality.checks import Checks
from k2stream.records import TopicPartition
from k2stream.rows import key_columns
from k2stream.state.store import KeyChunk, Stamp, Update
from k2stream.topics import redundant_topics
from k2stream.window import OpenWindow

log = structlog.get_logger(__name__)

LARGE_LETTERS_BYTES = 16 << 20
TRACKER_FILE_EVERY = 20
"""Commits between two tracker files: what a restart without Redis reads back stays below 20 windows of rows."""


@dataclass(slots=True)
class Closing:
    """State of the sink thread between two windows."""

    memory: Memory
    recent: RecentWindows
    checks: Checks | None = None
    """Knows what rows were like before; None: nothing is flagged."""
    dirty: set[TopicPartition] = field(default_factory=set)
    """Partitions whose streams changed since their newest tracker file."""
    commits: int = TRACKER_FILE_EVERY - 1
    """Since the last tracker file; a new life writes one at once, or a worker that dies often would read back ever more."""

    def of(self, memory: Memory, kept: set[TopicPartition]) -> "Closing":
        """The same between two windows, with the memory of another assignment of which `kept` were here before."""
        if self.checks is not None:
            self.checks.keep(kept)
        return Closing(memory, self.recent, self.checks, self.dirty & kept, self.commits)


def settle_and_write(edges: Edges, closing: Closing, window: OpenWindow, stages: Stages) -> tuple[Settled, Staged]:
    """Decide the window and write its files (step 1). What is decided here is not decided again."""
    edges.on_step("0.settle")
    with stages.timed("exact"):
        asked = ask(window.judged, closing.recent)
    with stages.timed("lookup"):
        answers = _answers(edges, closing, asked)
    with stages.timed("gaps"):
        settled = settle(asked, answers, closing.memory.tracker)
    with stages.timed("quality"):
        settled = settled if closing.checks is None else replace(settled, flags=closing.checks.flag(settled.rows, _odd_doubles(closing, settled)))
    closing.recent.add(window.number, settled.keys)
    closing.dirty |= set(settled.spans)
    with stages.timed("write"):
        staged = _written(edges, files_of(closing, window, settled))
    return settled, staged


def _written(edges: Edges, files: Window) -> Staged:
    is_large = files.letters is not None and files.letters.nbytes > LARGE_LETTERS_BYTES
    staged = edges.table.write(files)
    del files
    if is_large:  # staged no longer holds them: the pool would keep their room for rows that may never come
        pa.default_memory_pool().release_unused()
    return staged


def _odd_doubles(closing: Closing, settled: Settled) -> pa.Table | None:
    """Doubles that nobody expects. Of redundant topics each second report is one: the ledger counts those by topic, a flag each would fill a table."""
    if settled.doubles is None:
        return None
    twins = redundant_topics(tp.topic for tp in (*closing.memory.head.vector, *settled.spans))
    if not twins:
        return settled.doubles
    return settled.doubles.filter(pc.invert(pc.is_in(settled.doubles["topic"].cast(pa.string()), pa.array(sorted(twins)))))


def _answers(edges: Edges, closing: Closing, asked: Asked) -> NDArray[np.bool_]:
    snapshot_id = closing.memory.head.snapshot_id
    if not len(asked.unsure) or snapshot_id is None:
        return np.zeros(len(asked.unsure), dtype=bool)
    rows = asked.rows.select([*key_columns(asked.rows.column_names), "timestamp"]).take(asked.unsure)
    exchange, symbol, native_id, time = rows.columns
    return edges.lookup(exchange, symbol, native_id, time, snapshot_id)


def files_of(closing: Closing, window: OpenWindow, settled: Settled) -> Window:
    """A tracker file goes along when the rows alone could not bring a restart to the same state."""
    tracker = None
    if settled.has_notes or closing.commits >= TRACKER_FILE_EVERY - 1:
        tracker = {tp: closing.memory.tracker.snapshot(tp) for tp in closing.dirty}
        closing.dirty.clear()
        closing.commits = 0
    return Window(
        number=window.number,
        rows=settled.rows,
        events=settled.events,
        deltas=dict(settled.deltas),
        spans=dict(settled.spans),
        tracker=tracker,
        letters=letter_rows(map(letter_of, settled.rejects)) if settled.rejects else None,
        watermark_us=int(settled.times_us.max()) if len(settled.times_us) else None,
        flags=settled.flags,
        marks={receipt.tp: Mark(*receipt.last_data) for receipt in window.batches if receipt.last_data is not None},
    )


def commit(edges: Edges, closing: Closing, settled: Settled, staged: Staged, deadline: Deadline, stages: Stages) -> Head:
    """Steps 2 to 6. Raises Fenced or CommitUnknown; after step 3 landed, later trouble is logged and mended by whoever comes next."""
    with stages.timed("commit"):
        head = edges.table.commit(staged, deadline)
    closing.memory = Memory(head, closing.memory.tracker, closing.memory.seen)
    closing.commits += 1
    with stages.timed("outbox"):
        _take_outbox(edges, deadline)
    edges.on_step("6.before")
    with stages.timed("state"):
        _save_state(edges, closing, settled, head)
    edges.on_step("6.after")
    return head


def _take_outbox(edges: Edges, deadline: Deadline) -> None:
    try:
        edges.table.take_outbox(deadline)
    except K2Error as exc:
        log.warning("outbox.postponed", cause=str(exc), then="the next commit of any worker takes it")


def _save_state(edges: Edges, closing: Closing, settled: Settled, head: Head) -> None:
    """State may lag behind the table, so its trouble never stops a commit."""
    memory = closing.memory
    updates = {}
    for tp, mask in _new_rows_of(settled):
        stamp = Stamp(head.table_uuid, head.sequence_number, head.snapshot_id or 0, head.vector[tp].next)
        since = settled.spans[tp][0]
        updates[tp] = Update(
            stamp,
            memory.tracker.snapshot(tp),
            _chunk(settled, mask),
            since,
            memory.seen.floor(tp),
            # Keys since the partition's start are all its filter was ever given, so they promise what it does.
            memory.seen.floor(tp) if since == head.vector[tp].start else floor_without_keys(head),
        )
    first = dict(list(updates.items())[:1])
    try:
        refused = edges.store.save(first)
        edges.on_step("6.saving")  # partitions are saved each for itself: a death between them must be harmless
        refused |= edges.store.save({tp: update for tp, update in updates.items() if tp not in first})
    except StateError as exc:
        metrics.STATE_FAILURES.labels("unsaved").inc(len(updates))
        log.warning("state.unsaved", cause=str(exc), then="state is rebuilt from the tables when it is needed")
        return
    metrics.STATE_SAVES.inc(len(updates) - len(refused))
    if refused:
        metrics.STATE_FAILURES.labels("refused").inc(len(refused))
        log.warning("state.refused", partitions=sorted(map(str, refused)), why="newer state is stored: another worker owns them")


def _new_rows_of(settled: Settled) -> Sequence[tuple[TopicPartition, slice]]:
    """Rows are in the order (topic, partition, offset), so each partition's new rows are one slice."""
    slices, at = [], 0
    for tp in sorted(settled.spans):
        rows = settled.deltas[tp].rows
        slices.append((tp, slice(at, at + rows)))
        at += rows
    return slices


def _chunk(settled: Settled, rows: slice) -> KeyChunk | None:
    times = settled.times_us[rows]
    if not len(times):
        return None
    return KeyChunk(int(times.max()), int(times.min()), settled.keys[rows].tobytes())
