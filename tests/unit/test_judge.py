"""Batches judged together are judged as they would be alone, and fill a window by all they hold."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from k2stream.decode.columns import decoded_schema
from k2stream.dedup.bloom import SeenFilter
from k2stream.instruments.changes import judge_changes
from k2stream.pipeline import REJECT_COPIES, Judging, judge, judge_many, noted_bytes
from k2stream.records import FURTHEST_MS, Batch, LogBatch, TopicPartition
from k2stream.rows import INSTRUMENTS
from k2stream.testing import a_reject, trade_rows
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.validate import Limits
from k2stream.verdict import Decoded, Judged, Reason

TOPIC = "market.equities.trades.asx"
NOW_US = 1_800_000_000_000_000


def pair(partition: int, first: int, ids: list[str], **changes: object) -> tuple[Batch, Decoded]:
    """A batch of these trades and what its decoder gives: words in a dictionary of the batch's own."""
    rows = trade_rows([{"topic": TOPIC, "partition": partition, "offset": first + n, "trade_id": id, "symbol": id[:3], **changes} for n, id in enumerate(ids)])
    held = (log_batch(partition, first, len(ids)),) if ids else ()
    batch = Batch(TOPIC, partition, first, first + len(ids), held, 0)
    return batch, Decoded(rows.cast(decoded_schema("trade_v2")), (), ())


def log_batch(partition: int, first: int, records: int) -> LogBatch:
    """Bytes of which a dead letter is made."""
    raw = build_log_batch([Outgoing(b"BHP", b"\0\0\0\0\1body", 1)] * records)
    return LogBatch.parse(TOPIC, partition, first.to_bytes(8, "big") + raw[8:], first)


def judging(known: np.ndarray) -> Judging:
    seen = SeenFilter(1 << 20, 86_400_000_000, 0)
    for partition in (0, 1):
        seen.set_floor(TopicPartition(TOPIC, partition), -(1 << 62))
    seen.mark(known, 0)
    return Judging("ASX", "equities", seen, Limits(3_600_000_000, 0), NOW_US, marked_through=3)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(lambda: [pair(0, 5, ["BHP-1", "CBA-2"]), pair(1, 0, []), pair(1, 0, ["RIO-3", "BHP-1", "CBA-9"]), pair(0, 7, ["ZZZ-4"])], id="all valid"),
        pytest.param(lambda: [pair(0, 5, []), pair(1, 0, [])], id="nothing"),
        pytest.param(lambda: [pair(0, 5, ["BHP-1", "CBA-2"]), pair(1, 0, ["RIO-3"], side="NONE"), pair(0, 7, ["ZZZ-4"])], id="one row invalid"),
        pytest.param(lambda: [pair(0, 5, ["BHP-1", "CBA-2"]), pair(2, 0, ["RIO-3"])], id="a partition without a floor"),
    ],
)
def test_joined_is_as_alone(pairs: Callable[[], list[tuple[Batch, Decoded]]]) -> None:
    """The same rows, keys, doubts and counts, whatever other batches were in the call."""
    made = pairs()
    first = judge(*made[0], judging(np.empty((0, 2), np.uint64)))
    known = first.keys[:1]
    joined = judge_many([b for b, _ in made], [d for _, d in made], judging(known))
    alone = [judge(b, d, judging(known)) for b, d in made]
    assert len(joined) == len(alone)
    for one, other in zip(joined, alone, strict=True):
        assert one.rows.equals(other.rows)
        assert np.array_equal(one.keys, other.keys)
        assert np.array_equal(one.maybe, other.maybe)
        assert (one.tp, one.first_offset, one.next_offset, one.holes, one.size_bytes) == (
            other.tp,
            other.first_offset,
            other.next_offset,
            other.holes,
            other.size_bytes,
        )
        assert (one.rejects, one.markers, one.marked_through) == (other.rejects, other.markers, other.marked_through)


@pytest.mark.parametrize("judged_by", [judge_many, judge_changes])
def test_what_makes_no_row_fills_a_window_too(judged_by: Callable[..., list[Judged]]) -> None:
    """By all copies that a letter takes. Else a topic of nothing but bad records grows a window until memory ends; of reference data as of trades."""
    columns = decoded_schema("trade_v2") if judged_by is judge_many else INSTRUMENTS
    bad = tuple(replace(a_reject(TOPIC, 0, n, b"BHP"), value=b"x" * 1_000_000) for n in range(3))
    batch = Batch(TOPIC, 0, 0, 3, (log_batch(0, 0, 3),), 0)

    (judged,) = judged_by([batch], [Decoded(columns.empty_table(), bad)], judging(np.empty((0, 2), np.uint64)))

    assert judged.rejects == bad
    assert judged.size_bytes == noted_bytes(bad, ()) > REJECT_COPIES * 3_000_000


@pytest.mark.parametrize("time_ms", [2**62, -(2**62), 2**63 - 1])
def test_an_end_at_a_time_that_no_column_holds_ends_no_worker(time_ms: int) -> None:
    """A producer may stamp anything: the nearest time that there is."""
    end = replace(a_reject(TOPIC, 0, 0, b"7078"), reason=Reason.NO_VALUE, value=None, timestamp_ms=time_ms)
    batch = Batch(TOPIC, 0, 0, 1, (log_batch(0, 0, 1),), 0)

    (judged,) = judge_changes([batch], [Decoded(INSTRUMENTS.empty_table(), (end,))], judging(np.empty((0, 2), np.uint64)))

    assert judged.rows["delisted_at"].cast("int64").to_pylist() == [(FURTHEST_MS if time_ms > 0 else -FURTHEST_MS) * 1000]
