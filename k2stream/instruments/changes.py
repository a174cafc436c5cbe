"""Records of reference data as changes: what a batch says, and a window of batches; pure.

There is no dedup by id and there are no sequence numbers: saying the same twice changes nothing.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from k2stream.gaps import EVENTS
from k2stream.instruments.merge import CHANGES, IS_END
from k2stream.lake.offsets import Counts
from k2stream.pipeline import Judging, Settled, holes_of, noted_bytes, rejects_of, spans_of, without
from k2stream.records import Batch, TopicPartition, micros_of
from k2stream.rows import INSTRUMENTS, joined
from k2stream.validate import INSTRUMENT_RULES, Expected, broken_rules
from k2stream.verdict import Decoded, Judged, Reason, Reject

NO_KEYS = np.empty((0, 2), np.uint64)
NO_TIMES = np.empty(0, np.int64)


def judge_changes(batches: Sequence[Batch], decoded: Sequence[Decoded], by: Judging) -> list[Judged]:
    """Batches of one topic as rows of CHANGES, in offset order; raises UnexplainedHole as pipeline.judge_many does."""
    return [_judge(batch, d, by) for batch, d in zip(batches, decoded, strict=True)]


def _judge(batch: Batch, decoded: Decoded, by: Judging) -> Judged:
    invalid = broken_rules(decoded.rows, INSTRUMENT_RULES, Expected(by.exchange, by.asset_class, by.now_us, by.limits))
    stated = _stated(without(decoded.rows, [i.row for i in invalid]), by)
    ends = [r for r in decoded.rejects if company_of(r) is not None]
    rejects = [r for r in decoded.rejects if company_of(r) is None] + (rejects_of(batch, invalid) if invalid else [])
    rows = joined([stated, _ends(ends, by)]).sort_by("offset") if ends else stated
    return Judged(
        tp=batch.tp,
        first_offset=batch.first_offset,
        next_offset=batch.next_offset,
        rows=rows,
        keys=NO_KEYS,
        maybe=np.zeros(0, bool),
        rejects=tuple(sorted(rejects, key=lambda r: r.offset)),
        markers=decoded.markers,
        holes=holes_of(batch, rows.num_rows + len(rejects) + len(decoded.markers)),
        marked_through=by.marked_through,
        size_bytes=rows.nbytes + noted_bytes(rejects, decoded.markers),
    )


def company_of(reject: Reject) -> str | None:
    """Whose listing a record without a value ends; None if it is no such record."""
    if reject.reason is not Reason.NO_VALUE or not reject.key:
        return None
    try:
        return reject.key.decode()
    except UnicodeDecodeError:
        return None


def _stated(rows: pa.Table, by: Judging) -> pa.Table:
    """Decoded rows as changes, added columns behind; the exchange is written as its topic's, or one company would lie in two places."""
    added = [field for field in rows.schema if field.name not in INSTRUMENTS.names]
    columns = [rows[field.name].cast(field.type) for field in INSTRUMENTS]
    columns[INSTRUMENTS.get_field_index("exchange")] = pa.chunked_array([pa.repeat(by.exchange, rows.num_rows).cast(pa.string())])
    nothing = pa.nulls(rows.num_rows, CHANGES.field("delisted_at").type)
    is_end = pa.array(np.zeros(rows.num_rows, bool))
    return pa.table([*columns, nothing, is_end, *(rows[field.name] for field in added)], schema=pa.schema([*CHANGES, *added]))


def _ends(rejects: Sequence[Reject], by: Judging) -> pa.Table:
    said = [
        {
            "company_id": company_of(r),
            "exchange": by.exchange,
            "asset_class": by.asset_class,
            "topic": r.topic,
            "partition": r.partition,
            "offset": r.offset,
            "delisted_at": micros_of(r.timestamp_ms),
            IS_END.name: True,
        }
        for r in rejects
    ]
    return pa.table([pa.array([row.get(field.name) for row in said], field.type) for field in CHANGES], schema=CHANGES)


def settle_changes(judged: Sequence[Judged]) -> Settled:
    """A window's changes in the order (topic, partition, offset); how many rows they replace is seen when they are committed."""
    ordered = tuple(sorted(judged, key=lambda j: (j.tp, j.first_offset)))
    deltas: dict[TopicPartition, Counts] = {}
    for j in ordered:
        deltas[j.tp] = deltas.get(j.tp, Counts()) + Counts(j.rows.num_rows, 0, len(j.rejects), len(j.markers), j.holes)
    return Settled(
        rows=joined([j.rows for j in ordered]),
        keys=NO_KEYS,
        times_us=NO_TIMES,
        events=EVENTS.empty_table(),
        deltas=deltas,
        spans=spans_of(ordered),
        rejects=tuple(r for j in ordered for r in j.rejects),
        has_notes=False,
    )
