"""The tracker equals its slow definition whatever a log holds, wherever windows are cut and whenever a worker starts anew."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2stream.gaps import EVENTS, MANY_ROWS, Loss, Notes, Tracker
from k2stream.gaps_oracle import GapOracle
from k2stream.records import TopicPartition
from k2stream.rows import TIMESTAMP
from k2stream.testing import a_reject
from k2stream.verdict import Marker

COLUMNS = pa.schema(
    [
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("source_sequence", pa.int64()),
        ("timestamp", TIMESTAMP),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
TOPICS = ("t.primary", "t.spare")
START_US = 1_394_400_000_000_000
HOUR_US = 3_600_000_000
SMALL_ROWS = 10

Row = Mapping[str, Any]


@dataclass
class Log:
    """A log as it is drawn: records in the order they arrived, numbers and clocks of its streams."""

    records: list[Row | Marker | Any] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    clock_us: int = START_US

    def offset(self, tp: TopicPartition) -> int:
        self.offsets[tp] = self.offsets.get(tp, 0) + 1
        return self.offsets[tp]

    def row(self, tp: TopicPartition, exchange: str, symbol: str, number: int | None, time_us: int) -> None:
        self.records.append(
            {
                "exchange": exchange,
                "symbol": symbol,
                "source_sequence": number,
                "timestamp": time_us,
                "topic": tp.topic,
                "partition": tp.partition,
                "offset": self.offset(tp),
            }
        )


def place_of(record: Any) -> tuple[str, int, int]:
    """(topic, partition, offset) of whatever a log holds."""
    if isinstance(record, dict):
        return record["topic"], record["partition"], record["offset"]
    return record.topic, record.partition, record.last if isinstance(record, Loss) else record.offset


streams = st.tuples(st.sampled_from(["ASX", "BIN"]), st.sampled_from(["BHP", "CBA", "Ünï"]))
partitions = st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 2))
OFTEN = ["go", "go", "go", "skip", "skip", "back", "back", "refill", "refill"]
operations = st.sampled_from([*OFTEN, "null", "fall", "session", "reconnect", "reject", "loss", "far"])


@st.composite
def logs(draw: st.DrawFn, *, with_notes: bool = True) -> Log:
    """Rows in and out of order, resets, markers of new and of old sessions, rejects, losses, streams that change partition."""
    log = Log()
    homes = {stream: draw(partitions) for stream in [(e, s) for e in ("ASX", "BIN") for s in ("BHP", "CBA", "Ünï")]}
    for _ in range(draw(st.integers(1, 40))):
        stream = draw(streams)
        tp = homes[stream] if draw(st.integers(0, 9)) else draw(partitions)
        _extend(draw, log, tp, stream, draw(operations), with_notes)
    return log


def _extend(draw: st.DrawFn, log: Log, tp: TopicPartition, stream: tuple[str, str], operation: str, with_notes: bool) -> None:
    number = log.numbers.get(stream, draw(st.integers(-3, 40)))
    log.clock_us += draw(st.sampled_from([0, 1, 1000, HOUR_US - 1, HOUR_US]))
    time_us = log.clock_us - draw(st.sampled_from([0, 0, 0, 1, 500, HOUR_US, 5 * HOUR_US]))
    match operation:
        case "go":
            for step in range(draw(st.integers(1, 6))):
                log.row(tp, *stream, number + step, time_us + step)
                log.numbers[stream] = number + step + 1
        case "skip":
            number += draw(st.sampled_from([*range(1, 15), 50]))
            log.row(tp, *stream, number, time_us)
            log.numbers[stream] = number + 1
        case "back":
            for _ in range(draw(st.integers(1, 4))):
                log.row(tp, *stream, number - draw(st.integers(1, 30)), time_us)
        case "refill":
            first = number - draw(st.integers(1, 60))
            for step in range(draw(st.integers(1, 80))):
                log.row(tp, *stream, first + step, time_us + step * draw(st.sampled_from([0, 1, HOUR_US // 20])))
                log.numbers[stream] = max(number, first + step + 1)
        case "null":
            log.row(tp, *stream, None, time_us)
        case "fall":
            log.clock_us += HOUR_US
            log.row(tp, *stream, 1, log.clock_us)
            log.numbers[stream] = 2
        case "far":
            log.row(tp, *stream, draw(st.sampled_from([(1 << 63) - 1, -(1 << 63), (1 << 62)])), time_us)
        case _ if with_notes:
            _note(draw, log, tp, stream[1], operation, time_us)
            if operation == "session":
                log.numbers[stream] = 1


def _note(draw: st.DrawFn, log: Log, tp: TopicPartition, symbol: str, operation: str, time_us: int) -> None:
    match operation:
        case "session":
            session = draw(st.sampled_from(["", "2014-03-10", "2014-03-11", "2014-03-12"]))
            log.records.append(Marker(*tp, log.offset(tp), symbol, "session_start", session, time_us))
        case "reconnect":
            log.records.append(Marker(*tp, log.offset(tp), symbol, "reconnect", "2014-03-10", time_us))
        case "reject":
            key = draw(st.sampled_from([symbol.encode(), None, b"\xff", b"", b"other"]))
            log.records.append(a_reject(*tp, log.offset(tp), key))
        case "loss":
            first = log.offset(tp)
            log.offsets[tp] += 3
            log.records.append(Loss(*tp, first, first + 2))


def windows_of(draw: st.DrawFn, log: Log) -> list[list[Any]]:
    """The log cut anywhere; inside a window records are in the order (topic, partition, offset)."""
    cuts = sorted(draw(st.sets(st.integers(0, len(log.records)), max_size=6)))
    edges = zip([0, *cuts], [*cuts, len(log.records)], strict=True)
    return [sorted(log.records[first:last], key=place_of) for first, last in edges]


def table_of(rows: Iterable[Row], *, is_encoded: bool) -> pa.Table:
    """Rows as the pipeline hands them on: texts plain or dictionary-encoded, in any number of chunks."""
    table = pa.Table.from_pylist(list(rows), schema=COLUMNS)
    if not is_encoded:
        return table
    for name in ("exchange", "symbol", "topic"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    half = table.num_rows // 2
    return pa.concat_tables([table.slice(half), table.slice(0, half)][::-1])


def notes_of(window: Sequence[Any]) -> Notes:
    """What of a window is no row."""
    return Notes(
        markers=tuple(r for r in window if isinstance(r, Marker)),
        rejects=tuple(r for r in window if hasattr(r, "reason")),
        losses=tuple(r for r in window if isinstance(r, Loss)),
    )


def rows_of(window: Sequence[Any]) -> list[Row]:
    return [r for r in window if isinstance(r, dict)]


def plain(events: pa.Table) -> list[dict[str, Any]]:
    """Events as the oracle says them: times as integers."""
    assert events.schema == EVENTS
    for name in ("timestamp", "previous_timestamp"):
        events = events.set_column(events.schema.get_field_index(name), name, events[name].cast(pa.int64()))
    return events.to_pylist()


def reborn(tracker: Tracker, tps: Iterable[TopicPartition]) -> Tracker:
    """Another worker that knows only what was saved."""
    other = Tracker("trades", SMALL_ROWS)
    for tp in sorted(tps):
        assert other.restore(tp, tracker.snapshot(tp))
    return other


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_events_equal_the_slow_definition(monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Every column of every event, in the records' order, over windows cut anywhere and workers that start anew between them."""
    log = data.draw(logs())
    monkeypatch.setattr("k2stream.gaps.MANY_ROWS", data.draw(st.sampled_from([1, 2, MANY_ROWS])))
    tracker, oracle = Tracker("trades", SMALL_ROWS), GapOracle("trades", SMALL_ROWS)
    for window in windows_of(data.draw, log):
        found = tracker.settle(table_of(rows_of(window), is_encoded=data.draw(st.booleans())), notes_of(window))
        expected = oracle.feed(rows_of(window), notes_of(window))

        assert plain(found) == expected

        summary = tracker.summary()
        assert (summary["missing"], summary["untracked"]) == (oracle.missing(), oracle.untracked)
        if data.draw(st.booleans()):
            tracker = reborn(tracker, log.offsets)
            assert tracker.summary() == summary


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_replay_leaves_the_state_that_settle_left(data: st.DataObject) -> None:
    """Rows read back from the table bring another worker to the same state, bytes for bytes, in windows of other sizes."""
    log = data.draw(logs(with_notes=False))
    settled, replayed = Tracker("trades", SMALL_ROWS), Tracker("trades", SMALL_ROWS)
    log.records.sort(key=place_of)
    for window in windows_of(data.draw, log):
        settled.settle(table_of(rows_of(window), is_encoded=True), Notes())
    for window in windows_of(data.draw, log):
        replayed.replay(table_of(rows_of(window), is_encoded=False))

    for tp in log.offsets:
        assert replayed.snapshot(tp) == settled.snapshot(tp)


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_snapshot_is_refused_or_read_but_never_raises(log: Log, at: int, byte: int) -> None:
    """State is a cache of the table: whatever lies in the store, a worker starts."""
    tracker = Tracker("trades", SMALL_ROWS)
    tracker.settle(table_of(rows_of(sorted(log.records, key=place_of)), is_encoded=True), notes_of(log.records))
    for tp in log.offsets:
        blob = bytearray(tracker.snapshot(tp))
        other = Tracker("trades", SMALL_ROWS)
        assert not other.restore(tp, bytes(blob[: at % len(blob)]))
        blob[at % len(blob)] = byte
        other.restore(tp, bytes(blob))


def a_million_trades() -> tuple[list[tuple[Any, ...]], Notes]:
    """50 symbols over 8 partitions, in the order of their offsets.

    Numbers are lost, rejected, missing, and come back late; sessions begin with and without a word.
    """
    random = np.random.default_rng(20140310)
    symbols, dice = random.integers(0, 50, 1_000_000).tolist(), (random.random(1_000_000) * 100_000).tolist()
    rows: list[tuple[Any, ...]] = []
    notes: list[Any] = []
    numbers, offsets = [0] * 50, [0] * 8
    for i, (symbol, die) in enumerate(zip(symbols, dice, strict=True)):
        numbers[symbol] += 1
        offsets[symbol % 8] += 1
        place = ("t.primary", symbol % 8, offsets[symbol % 8])
        name, time_us, number = f"S{symbol}", START_US + i * 100_000, numbers[symbol]
        if die < 50:  # a number comes back late, of this session or, if it is old, of the one before
            numbers[symbol], number, time_us = number - 1, number - 1 - int(die * 100) % 90, time_us - (3_700_000_000 if die < 10 else 0)
        elif die < 150:
            numbers[symbol] += int(die) % 30
        elif die < 200:
            notes.append(a_reject(*place, name.encode()))
            continue
        elif die < 205:
            is_start = die < 203
            notes.append(Marker(*place, name, "session_start" if is_start else "reconnect", f"{i:08}" if die < 202 else "0", time_us))
            numbers[symbol] = 0 if is_start else number + 5
            continue
        elif die < 206:
            numbers[symbol] = number = 1
        rows.append(("ASX", name, None if 206 < die < 230 else number, time_us, *place))
    rows.sort(key=lambda row: row[4:])
    return rows, notes_of(notes)


def test_a_million_trades_of_fifty_symbols() -> None:
    """At the size of real windows, with a worker starting anew after each."""
    rows, notes = a_million_trades()
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, COLUMNS, strict=True)], schema=COLUMNS)
    tracker, found, spent = Tracker("trades", SMALL_ROWS), [], 0.0
    firsts = range(0, len(rows), 250_000)
    edges = [("", 0, 0), *(rows[first][4:] for first in firsts[1:]), ("z", 0, 0)]
    for first, begin, end in zip(firsts, edges, edges[1:], strict=False):
        own = notes_of([n for n in (*notes.markers, *notes.rejects) if begin <= place_of(n) < end])
        started = time.perf_counter()
        events = tracker.settle(table.slice(first, 250_000), own)
        spent += time.perf_counter() - started
        found += plain(events)
        tracker = reborn(tracker, {TopicPartition("t.primary", p) for p in range(8)})
    oracle = GapOracle("trades", SMALL_ROWS)

    assert found == oracle.feed((dict(zip(COLUMNS.names, row, strict=True)) for row in rows), notes)
    assert {e["kind"] for e in found} == {"opened", "shrunk", "filled", "reset"}
    assert {e["cause"] for e in found} == {"upstream", "dead_letter", "feed_reconnect"}
    assert tracker.summary()["missing"] == oracle.missing()
    assert spent < 5, "twenty times the usual: rows that only move on are judged one by one"
