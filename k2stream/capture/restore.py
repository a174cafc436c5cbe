"""Bring a worker's memory of its partitions up to the table's vector.

Order of trust: the table's vector says where to read from; the newest state stamped at or below it (the store's if its
snapshot is an ancestor of the head, else the tracker file) says what the streams knew there; the table's own rows, in
offset order, close the rest. The topic is never read for it: dedup could only call those records seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import structlog

from k2stream.capture.edges import Edges, Head
from k2stream.dedup.bloom import SeenFilter
from k2stream.dedup.keys import dedup_keys
from k2stream.errors import StateError
from k2stream.gaps import Tracker
from k2stream.lake.offsets import Entry
from k2stream.pipeline import event_times_us
from k2stream.records import TopicPartition
from k2stream.state.store import Saved

log = structlog.get_logger(__name__)

NOTHING_BEFORE = -(1 << 63)
"""Floor of a partition whose every committed key is in the filter."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a worker knows of its partitions at the head's vector."""

    head: Head
    tracker: Tracker
    seen: SeenFilter


def restore(edges: Edges, head: Head, tracker: Tracker, seen: SeenFilter, tps: set[TopicPartition]) -> Memory:
    """Fill an empty tracker and filter for `tps`; every one of them has an entry in the head's vector."""
    saved = _load(edges, tps)
    for tp in sorted(tps):
        edges.on_step("restore")
        base = _restore_one(edges, head, tracker, seen, tp, saved.get(tp))
        _replay(edges, head, tracker, seen, tp, base)
    return Memory(head, tracker, seen)


def _load(edges: Edges, tps: set[TopicPartition]) -> Mapping[TopicPartition, Saved]:
    try:
        return edges.store.load(tps)
    except StateError as exc:
        log.warning("state.unreadable", cause=str(exc), then="state is rebuilt from the tables")
        return {}


def _restore_one(
    edges: Edges, head: Head, tracker: Tracker, seen: SeenFilter, tp: TopicPartition, saved: Saved | None
) -> int:
    """Newest usable state of one partition; returns the offset it stands at."""
    entry = head.vector[tp]
    if saved is not None and _is_usable(head, entry, saved) and tracker.restore(tp, saved.tracker):
        for chunk in saved.keys:
            seen.mark(np.frombuffer(chunk.hashes, np.uint64).reshape(-1, 2), chunk.max_time_us)
        seen.set_floor(tp, saved.floor_us)
        return saved.stamp.next
    seen.set_floor(tp, floor_without_keys(head))
    if entry.tracker_file is not None:
        found = edges.table.tracker_blob(entry.tracker_file, tp)
        if found is not None and tracker.restore(tp, found[1]):
            return found[0]
    return entry.start


def _is_usable(head: Head, entry: Entry, saved: Saved) -> bool:
    stamp = saved.stamp
    return stamp.table_uuid == head.table_uuid and head.is_ancestor(stamp.snapshot_id) and stamp.next <= entry.next


def floor_without_keys(head: Head) -> int:
    """Without a filter every row not newer than what is committed is a question to the table, unless it never had a row.

    A partition's first start is no exception: its keys may stand in rows from before an adoption, or of another partition.
    """
    return NOTHING_BEFORE if head.watermark_us is None else head.watermark_us + 1


def _replay(
    edges: Edges, head: Head, tracker: Tracker, seen: SeenFilter, tp: TopicPartition, base: int
) -> None:
    entry = head.vector[tp]
    if base >= entry.next or head.snapshot_id is None:
        return
    rows = edges.rows_of(head.snapshot_id, tp, base, entry.next)
    tracker.replay(rows)
    if rows.num_rows:
        seen.mark(dedup_keys(rows["exchange"], rows["symbol"], rows["trade_id"]), event_times_us(rows))
    log.info("state.replayed", topic=tp.topic, partition=tp.partition, from_offset=base, to_offset=entry.next, rows=rows.num_rows)
