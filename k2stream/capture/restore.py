"""Bring a worker's memory of its partitions up to the table's vector.

Order of trust: the table's vector says where to read from; the newest tracker state stamped at or below it (the store's
if its snapshot is an ancestor of the head, or the tracker file that the head names) says what the streams knew there; the
table's own rows, in offset order, close the rest. The topic is never read for it: dedup could only call those records seen.

Newest, because rows do not tell of markers and rejects: every window that held one wrote a tracker file, so between the
newest state and `next` there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import structlog

from k2stream.capture.edges import Edges, Head
from k2stream.dedup.bloom import SeenFilter
from k2stream.dedup.keys import dedup_keys
from k2stream.errors import StateError
from k2stream.gaps import Tracker
from k2stream.lake.offsets import Entry
from k2stream.pipeline import event_times_us
from k2stream.records import TopicPartition
from k2stream.rows import key_columns
from k2stream.sequence_notes import Loss
from k2stream.state.store import Saved

log = structlog.get_logger(__name__)

NOTHING_BEFORE = -(1 << 63)
"""Floor of a partition whose every committed key is in the filter."""

STEP_OFFSETS = 250_000
"""Rows of so many offsets are in memory at once, some 40 MB, however far the state lies behind."""
UNTRACKED_OFFSETS = 20 * STEP_OFFSETS
"""So far back streams are read again that have no tracker file and lost what came next: gaps over a loss have a row before it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a worker knows of its partitions at the head's vector."""

    head: Head
    tracker: Tracker
    seen: SeenFilter


def restore(edges: Edges, head: Head, tracker: Tracker, seen: SeenFilter, tps: set[TopicPartition], *, floors: Sequence[int] = ()) -> Memory:
    """Fill a tracker and a filter that know nothing of `tps`; every one of them has an entry in the head's vector.

    `floors` are those of the partitions that the filter knows already.
    """
    saved = _load(edges, tps)
    stands: dict[TopicPartition, tuple[int, int]] = {}
    for tp in sorted(tps):
        edges.on_step("restore")
        usable = saved[tp] if tp in saved and _is_usable(head, head.vector[tp], saved[tp]) else None
        tracked = _restore_tracker(edges, head.vector[tp], tracker, tp, usable)
        stands[tp] = tracked, _restore_keys(seen, usable) if usable else head.vector[tp].next
    # Not before all are there: a stream of two topics may lie in a state of each, and rows replayed into the older one would pass it off as the newer.
    for tp, (tracked, keyed) in stands.items():
        _replay(edges, head, tracker, seen, tp, tracked=tracked, keyed=keyed)
    floor_us = _floor(head, {tp: saved.get(tp) for tp in tps}, floors)
    for tp in tps:
        seen.set_floor(tp, floor_us)
    return Memory(head, tracker, seen)


def _floor(head: Head, saved: Mapping[TopicPartition, Saved | None], known: Sequence[int] = ()) -> int:
    """One floor for all: the filter is one, so its "no" knows no more than what the least known partition gave it.

    A partition that never had a record and has nothing stored adds nothing.
    """
    floors = [
        s.floor_us if s is not None and _is_usable(head, head.vector[tp], s) else floor_without_keys(head)
        for tp, s in saved.items()
        if s is not None or head.vector[tp].next > head.vector[tp].start
    ]
    return max([*known, *floors], default=floor_without_keys(head))


def _load(edges: Edges, tps: set[TopicPartition]) -> Mapping[TopicPartition, Saved]:
    try:
        return edges.store.load(tps)
    except StateError as exc:
        log.warning("state.unreadable", cause=str(exc), then="state is rebuilt from the tables")
        return {}


def _restore_tracker(edges: Edges, entry: Entry, tracker: Tracker, tp: TopicPartition, saved: Saved | None) -> int:
    """Newest readable state of a partition's streams; returns the offset it stands at."""
    states = [(saved.stamp.next, saved.tracker)] if saved is not None else []
    if entry.tracker_file is not None and (found := edges.table.tracker_blob(entry.tracker_file, tp)) is not None:
        states.append(found)
    for stands_at, blob in sorted(states, key=lambda state: state[0], reverse=True):
        if tracker.restore(tp, blob):
            return stands_at
    return entry.start if entry.lost_from is None else max(0, entry.lost_from - UNTRACKED_OFFSETS)


def _restore_keys(seen: SeenFilter, saved: Saved) -> int:
    """Keys of a partition's filter; returns the offset up to which they reach."""
    for chunk in saved.keys:
        seen.mark(np.frombuffer(chunk.hashes, np.uint64).reshape(-1, 2), chunk.max_time_us)
    return saved.stamp.next


def _is_usable(head: Head, entry: Entry, saved: Saved) -> bool:
    stamp = saved.stamp
    return stamp.table_uuid == head.table_uuid and head.is_ancestor(stamp.snapshot_id) and entry.start <= stamp.next <= entry.next


def floor_without_keys(head: Head) -> int:
    """Without a filter every row not newer than what is committed is a question to the table, unless it never had a row.

    A partition's first start is no exception: its keys may stand in rows from before an adoption, or of another partition.
    """
    return NOTHING_BEFORE if head.watermark_us is None else head.watermark_us + 1


def _replay(edges: Edges, head: Head, tracker: Tracker, seen: SeenFilter, tp: TopicPartition, *, tracked: int, keyed: int) -> None:
    """Tracker and filter from where they stand up to `next`, a bounded number of rows at a time."""
    entry, base = head.vector[tp], min(tracked, keyed)
    if entry.lost_from is not None and tracked < entry.start:
        tracker.lose(Loss(*tp, entry.lost_from, entry.start - 1))
    if base >= entry.next or head.snapshot_id is None:
        return
    count = 0
    for first in range(base, entry.next, STEP_OFFSETS):
        rows = edges.rows_of(head.snapshot_id, tp, first, min(first + STEP_OFFSETS, entry.next))
        count += rows.num_rows
        tracker.replay(_from(rows, tracked))
        unknown = _from(rows, keyed)
        if unknown.num_rows:
            seen.mark(dedup_keys(*(unknown[name] for name in key_columns(unknown.column_names))), event_times_us(unknown))
    log.info("state.replayed", topic=tp.topic, partition=tp.partition, from_offset=base, to_offset=entry.next, rows=count)


def _from(rows: pa.Table, offset: int) -> pa.Table:
    """Rows at or above an offset; `rows` are in offset order."""
    return rows.slice(int(np.searchsorted(rows["offset"].to_numpy(), offset)))
