"""The way of the data, stage by stage: judge a batch, ask what memory cannot know, settle a window.

    BATCH --decode--> --validate--> --filter--> Judged          judge: per batch, any order of partitions
    [Judged] --repeats, recent windows--> Asked                 ask: per window; what is left goes to the table
    Asked + answers --exact stage--> --gaps--> Settled          settle: per window, in the order windows closed

Pure: no I/O, no clock. What was decided here is decided once; the commit only writes it down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.dedup.bloom import SeenFilter
from k2stream.dedup.keys import dedup_keys
from k2stream.dedup.seen import RecentWindows, repeats
from k2stream.errors import UnexplainedHole
from k2stream.gaps import Notes, Tracker
from k2stream.lake.offsets import Counts
from k2stream.quality.flags import FLAGS
from k2stream.records import Batch, Kind, Record, TopicPartition, records_at
from k2stream.rows import joined, key_columns, own_columns
from k2stream.validate import Invalid, Limits, validate
from k2stream.verdict import Decoded, Judged, Marker, Reject, reject

NOTE_BYTES = 400
"""What a reject or a marker weighs beside its bytes."""
REJECT_COPIES = 3
"""Of a reject's bytes at once: as it came, as a row of its table, and in the envelope that is being sent."""

SMALL_ROWS = 2_000
"""Batches of fewer rows on average are judged together; to copy larger ones costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A window's rows in the order (topic, partition, offset) and what memory says of them."""

    judged: tuple[Judged, ...]
    rows: pa.Table
    keys: NDArray[np.uint64]
    """Shape (rows, 2)."""
    repeated: NDArray[np.bool_]
    """Shape (rows,): the key stands earlier in this window or in a window that memory still holds."""
    unsure: NDArray[np.int64]
    """Row numbers that only the table can answer."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A window decided: what becomes a row, what is counted, and what the streams' sequences say."""

    rows: pa.Table
    """New rows, in the order (topic, partition, offset)."""
    keys: NDArray[np.uint64]
    times_us: NDArray[np.int64]
    """Event time of each new row, microseconds."""
    events: pa.Table
    deltas: Mapping[TopicPartition, Counts]
    spans: Mapping[TopicPartition, tuple[int, int]]
    rejects: tuple[Reject, ...]
    has_notes: bool
    """True if the tracker now knows what the table's rows cannot tell: markers, rejects, resets."""
    doubles: pa.Table | None = None
    """Records whose native id was there already, as rows; None without any."""
    flags: pa.Table = field(default_factory=FLAGS.empty_table)
    """What is odd about rows and doubles; told by k2stream.quality."""


@dataclass(frozen=True, slots=True)
class Judging:
    """What the batches of one topic are judged by."""

    exchange: str
    asset_class: str
    seen: SeenFilter
    limits: Limits
    now_us: int
    marked_through: int


def judge_many(batches: Sequence[Batch], decoded: Sequence[Decoded], by: Judging) -> list[Judged]:
    """Batches of one topic, each as by `judge`. Small ones are validated and hashed in one pass: it costs some 0.5 ms, whatever it holds.

    Raises UnexplainedHole if an offset of a batch is neither a record nor a hole with a cause.
    """
    counts = [d.rows.num_rows for d in decoded]
    if len(batches) == 1 or not 0 < sum(counts) < SMALL_ROWS * len(batches):
        return [judge(b, d, by) for b, d in zip(batches, decoded, strict=True)]
    columns = [f.name for f in own_columns(decoded[0].rows.schema) if not pa.types.is_nested(f.type)]
    rows = pa.concat_tables([d.rows.select(columns) for d in decoded]).combine_chunks()
    invalid = _invalid(rows, by)
    keys = _keys_of(without(rows, [i.row for i in invalid]))
    judged: list[Judged] = []
    first = at = 0
    for batch, of_one, count in zip(batches, decoded, counts, strict=True):
        mine = [replace(i, row=i.row - first) for i in invalid if first <= i.row < first + count]
        kept = count - len(mine)
        judged.append(_judged(batch, of_one, mine, keys[at : at + kept], by))
        first, at = first + count, at + kept
    return judged


def judge(batch: Batch, decoded: Decoded, by: Judging) -> Judged:
    """One batch as rows with keys and the filter's word, and its rejects; raises UnexplainedHole as judge_many does."""
    invalid = _invalid(decoded.rows, by)
    return _judged(batch, decoded, invalid, _keys_of(without(decoded.rows, [i.row for i in invalid])), by)


def _invalid(rows: pa.Table, by: Judging) -> list[Invalid]:
    return validate(rows, exchange=by.exchange, asset_class=by.asset_class, now_us=by.now_us, limits=by.limits)


def _judged(batch: Batch, decoded: Decoded, invalid: Sequence[Invalid], keys: NDArray[np.uint64], by: Judging) -> Judged:
    """`keys` are those of its valid rows."""
    rows = without(decoded.rows, [i.row for i in invalid])
    rejects = (*decoded.rejects, *rejects_of(batch, invalid)) if invalid else decoded.rejects
    return Judged(
        tp=batch.tp,
        first_offset=batch.first_offset,
        next_offset=batch.next_offset,
        rows=rows,
        keys=keys,
        maybe=by.seen.maybe(keys, event_times_us(rows), batch.tp),
        rejects=tuple(sorted(rejects, key=lambda r: r.offset)),
        markers=decoded.markers,
        holes=holes_of(batch, rows.num_rows + len(rejects) + len(decoded.markers)),
        marked_through=by.marked_through,
        size_bytes=rows.nbytes + noted_bytes(rejects, decoded.markers),
    )


def _keys_of(rows: pa.Table) -> NDArray[np.uint64]:
    return dedup_keys(*(rows[name] for name in key_columns(rows.column_names)))


def ask(judged: Sequence[Judged], recent: RecentWindows) -> Asked:
    """Put a window in order and answer from memory what memory can answer."""
    ordered = tuple(sorted(judged, key=lambda j: (j.tp, j.first_offset)))
    rows = joined([j.rows for j in ordered]).unify_dictionaries()
    keys = np.concatenate([j.keys for j in ordered])
    repeated = repeats(keys) | recent.hits(keys)
    unsure = np.flatnonzero(np.concatenate([j.maybe for j in ordered]) & ~repeated)
    return Asked(ordered, rows, keys, repeated, unsure)


def settle(asked: Asked, answers: NDArray[np.bool_], tracker: Tracker) -> Settled:
    """Decide a window; advances `tracker`.

    `answers` has one word for each of `asked.unsure`: True if the table holds the key already.
    """
    duplicate = asked.repeated.copy()
    duplicate[asked.unsure[answers]] = True
    new = asked.rows if not duplicate.any() else asked.rows.filter(pa.array(~duplicate))
    notes = Notes(
        markers=tuple(m for j in asked.judged for m in j.markers),
        rejects=tuple(r for j in asked.judged for r in j.rejects),
    )
    events = tracker.settle(new, notes)
    return Settled(
        doubles=asked.rows.filter(pa.array(duplicate)) if duplicate.any() else None,
        rows=new,
        keys=asked.keys[~duplicate],
        times_us=event_times_us(new),
        events=events,
        deltas=_deltas(asked, duplicate),
        spans=spans_of(asked.judged),
        rejects=notes.rejects,
        has_notes=bool(notes.markers or notes.rejects or "reset" in events["kind"].unique().to_pylist()),
    )


def noted_bytes(rejects: Sequence[Reject], markers: Sequence[Marker]) -> int:
    """Memory of what makes no row: a topic of nothing but bad records must fill a window too."""
    return NOTE_BYTES * (len(rejects) + len(markers)) + REJECT_COPIES * sum(map(_held_bytes, rejects))


def _held_bytes(reject: Reject) -> int:
    headers = sum(len(name) + len(value) for name, value in reject.headers)
    return len(reject.key or b"") + len(reject.value or b"") + len(reject.text) + headers


def event_times_us(rows: pa.Table) -> NDArray[np.int64]:
    """Event times of rows as integers, microseconds."""
    times: NDArray[np.int64] = rows["timestamp"].cast(pa.int64()).to_numpy()
    return times


def without(rows: pa.Table, drop: list[int]) -> pa.Table:
    if not drop:
        return rows
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[drop] = False
    return rows.filter(pa.array(keep))


def rejects_of(batch: Batch, invalid: Sequence[Invalid]) -> list[Reject]:
    """Letters need the bytes as they came, so bad rows are read again one by one; they are few."""
    records: Mapping[int, Record] = records_at(batch, {i.offset for i in invalid})
    return [_reject(records[i.offset], i) for i in invalid]


def _reject(record: Record, invalid: Invalid) -> Reject:
    value = record.value
    schema_id = int.from_bytes(value[1:5], "big") if value is not None and len(value) >= 5 else None
    return reject(record, invalid.reason, invalid.text, schema_id)


def holes_of(batch: Batch, records: int) -> int:
    explained, is_compacted = 0, False
    for b in batch.log_batches:
        if b.kind is not Kind.DATA:
            explained += b.last_offset - max(b.from_offset, batch.first_offset) + 1
        elif b.count < b.last_offset - b.base_offset + 1:
            is_compacted = True
    missing = batch.next_offset - batch.first_offset - records
    if missing < explained or (missing > explained and not is_compacted):
        raise UnexplainedHole(
            f"{batch.topic}/{batch.partition}: offsets {batch.first_offset} to {batch.next_offset - 1} hold {records} records "
            f"and {explained} explained holes; {missing - explained} offsets have neither. The log is damaged or the reader is wrong: "
            "the partition stops here, nothing of it was committed."
        )
    return missing


def _deltas(asked: Asked, duplicate: NDArray[np.bool_]) -> dict[TopicPartition, Counts]:
    deltas: dict[TopicPartition, Counts] = {}
    at = 0
    for j in asked.judged:
        total = j.rows.num_rows
        duplicates = int(duplicate[at : at + total].sum())
        at += total
        counts = Counts(total - duplicates, duplicates, len(j.rejects), len(j.markers), j.holes)
        deltas[j.tp] = deltas.get(j.tp, Counts()) + counts
    return deltas


def spans_of(judged: Sequence[Judged]) -> dict[TopicPartition, tuple[int, int]]:
    spans: dict[TopicPartition, tuple[int, int]] = {}
    for j in judged:
        first, _ = spans.get(j.tp, (j.first_offset, 0))
        spans[j.tp] = (first, j.next_offset)
    return spans
