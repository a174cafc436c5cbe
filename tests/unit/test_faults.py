"""The demo's faults: what is said to be injected is what a plain reading of the published records finds."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from k2stream.decode.record_decoder import RecordDecoder, WriterSchemas
from k2stream.feed import recorded
from k2stream.feed.avro import FRAME
from k2stream.feed.faults import APART, Injected, Plan, Trouble, inject
from k2stream.feed.publisher import FeedMarker
from k2stream.feed.recorded import Rows, Script
from k2stream.feed.recording import MessageIds, Recording
from k2stream.feed.spoiled import SPOILS
from k2stream.gaps_oracle import GapOracle
from k2stream.records import Record
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.sink import Outgoing
from k2stream.validate import Limits, validate
from k2stream.verdict import Reason, Reject

SCHEMA_ID = 3
NUMBERED = ("exchange", "symbol", "source_sequence", "timestamp", "trade_id")


class OneSchema:
    """A registry that knows trade_v2 under one id."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return avro_schema("trade_v2") if schema_id == SCHEMA_ID else None


@cache
def all_trades() -> list[Recording]:
    return recorded.trades(ids=MessageIds(UUID(int=1)), now_us=1_700_000_000_000_000)


def trades(rows: int | None = None) -> list[Recording]:
    return recorded.limited(all_trades(), rows)


def with_faults(recordings: list[Recording], seed: int) -> tuple[list[Script], Injected]:
    return inject(recordings, seed=seed, schema_ids={r.topic: SCHEMA_ID for r in recordings}, ids=MessageIds(UUID(int=2)))


@pytest.fixture(scope="module")
def whole() -> list[Recording]:
    return trades()


class PlainReader:
    """Reads scripts record by record: a set for dedup, the oracle for gaps, the decoder's slow path for what was spoiled."""

    def __init__(self) -> None:
        self.rows = 0
        self.duplicates = 0
        self.letters: Counter[Reason] = Counter()
        self.events: list[dict[str, Any]] = []
        self.oracle = GapOracle("trades", small_rows=10)
        self._seen: set[str] = set()
        self._decoder = RecordDecoder(WriterSchemas("trade_v2", OneSchema()))
        self._offset = 0

    def read(self, script: Script) -> "PlainReader":
        for row in self._rows(script):
            if row["trade_id"] in self._seen:
                self.duplicates += 1
                continue
            self._seen.add(row["trade_id"])
            self.rows += 1
            event = self.oracle.row({**row, "topic": script.recording.topic, "partition": 0, "offset": self._offset})
            self.events += [event] if event else []
        return self

    def _rows(self, script: Script) -> Iterator[dict[str, Any]]:
        table = script.recording.rows.select(NUMBERED)
        plain = table.set_column(3, "timestamp", table["timestamp"].cast(pa.int64())).to_pylist()
        topic = script.recording.topic
        for step in script.steps:
            self._offset += 1
            match step:
                case Rows():
                    for row in plain[step.first : step.stop]:
                        self._offset += 1
                        yield row
                case FeedMarker():
                    self.oracle.marker(topic, 0, self._offset, step.symbol, step.kind, step.session, step.time_us)
                case Outgoing():
                    yield from self._odd(topic, step)

    def _odd(self, topic: str, step: Outgoing) -> Iterator[dict[str, Any]]:
        found = self._decoder.decode(Record(topic, 0, self._offset, step.timestamp_ms, step.key, step.value))
        reason = found.reason if isinstance(found, Reject) else self._broken(found)
        if reason is not None:
            self.letters[reason] += 1
            self.oracle.reject(topic, 0, self._offset, step.key)
        else:
            assert isinstance(found, dict)
            yield {name: found[name] for name in NUMBERED}

    def _broken(self, found: Any) -> Reason | None:
        if not found["symbol"]:
            return Reason.SYMBOL_REQUIRED
        price = found["price"]
        unscaled = int.from_bytes(price, "big", signed=True) if isinstance(price, bytes) else price
        return Reason.PRICE_MUST_BE_POSITIVE if unscaled <= 0 else None

    def kinds(self) -> Counter[str]:
        return Counter(str(event["kind"]) for event in self.events)


def found_in(scripts: list[Script]) -> PlainReader:
    reader = PlainReader()
    for script in scripts:
        reader.read(script)
    return reader


@pytest.mark.parametrize("seed", [1])
def test_injected_is_what_a_plain_reading_finds(seed: int, whole: list[Recording]) -> None:
    """Rows, duplicates, letters by reason, gap events by kind, missing and untracked: all equal, on all the ticks."""
    scripts, injected = with_faults(whole, seed)
    found = found_in(scripts)
    assert injected.rows == 202_546 - len(injected.spoiled)
    assert (found.rows, found.duplicates, dict(found.letters)) == (injected.rows, injected.duplicates, injected.dead_letters)
    assert dict(found.kinds()) == {"opened": injected.opened, "filled": injected.filled, "reset": injected.resets}
    assert (found.oracle.missing(), found.oracle.untracked) == (injected.missing, injected.untracked)
    assert Counter(e["cause"] for e in found.events if e["kind"] == "opened")["dead_letter"] == len(injected.spoiled)
    assert {*Trouble, *SPOILS} == set(injected.faults)


@pytest.mark.parametrize("rows", [1, 2, 40, 500, 3_000, 20_000])
def test_short_recordings_get_fewer_faults_but_count_right(rows: int) -> None:
    """A row limit cuts sessions and leaves symbols out; the sums still hold."""
    scripts, injected = with_faults(trades(rows), seed=7)
    found = found_in(scripts)
    assert (found.rows, found.duplicates, dict(found.letters)) == (injected.rows, injected.duplicates, injected.dead_letters)
    assert found.kinds() == Counter({"opened": injected.opened, "filled": injected.filled, "reset": injected.resets})
    assert (found.oracle.missing(), found.oracle.untracked) == (injected.missing, injected.untracked)


def test_without_faults_the_only_events_are_the_sessions_resets(whole: list[Recording]) -> None:
    """19 sessions of four symbols: every session but a symbol's first is a reset; nothing is missing, nothing twice."""
    found = found_in([recorded.script(r) for r in whole])
    assert (found.rows, found.duplicates, dict(found.kinds())) == (202_546, 0, {"reset": 15})


def test_the_same_seed_gives_the_same_records_and_another_seed_others() -> None:
    """A run can be repeated to look at it again."""
    steps = [[s.steps for s in with_faults(trades(2_000), seed)[0]] for seed in (4, 4, 5)]
    assert steps[0] == steps[1]
    assert steps[0] != steps[2]


@pytest.mark.parametrize("seed", range(3))
def test_faults_of_a_symbol_keep_apart_and_off_the_ends_of_a_session(seed: int) -> None:
    """Each has its own effect: three rows between two of them, and between them and the first and last row."""
    for recording in trades(20_000):
        plan = Plan(recording, Random(seed), 12)
        for number, piece in enumerate(plan.pieces):
            positions = sorted(s.position for s in plan.faults if s.piece == number)
            assert all(b - a >= APART for a, b in pairwise(positions))
            assert all(APART - 1 <= p <= len(piece.rows) - APART for p in positions)


def test_a_missing_fault_removes_no_row(whole: list[Recording]) -> None:
    """It skips numbers: all trades but the spoiled ones are published, under their own ids."""
    scripts, injected = with_faults(whole, 3)
    for recording, script in zip(whole, scripts, strict=True):
        assert script.recording.rows["trade_id"].equals(recording.rows["trade_id"])
        rows = {r for s in script.steps if isinstance(s, Rows) for r in range(s.first, s.stop)}
        gone = set(range(recording.rows.num_rows)) - rows
        ids = recording.rows["trade_id"]
        assert {ids[r].as_py() for r in gone} == {i for i in injected.spoiled if i.startswith(recording.exchange.upper())}


@pytest.mark.parametrize("kind", SPOILS)
def test_a_spoiled_trade_is_refused_for_the_reason_it_was_spoiled_for(kind: str) -> None:
    """Decode and validate, as the worker runs them, give exactly that reason."""
    row = trades(50)[0].rows.slice(0, 1).to_pylist()[0]
    value = SPOILS[kind].bytes_of(row, schema_id=SCHEMA_ID)
    found = RecordDecoder(WriterSchemas("trade_v2", OneSchema())).decode(Record("market.equities.trades.asx", 0, 0, 0, b"BHP", value))
    if isinstance(found, Reject):
        assert found.reason == SPOILS[kind].reason
        return
    assert value[: FRAME.size] == FRAME.pack(0, SCHEMA_ID)
    table = pa.Table.from_pylist([{**row, **SPOILS[kind].row(row), "offset": 0}])
    (invalid,) = validate(table, exchange="asx", asset_class="equities", now_us=0, limits=Limits(max_ahead_us=0, max_age_us=0))
    assert invalid.reason == SPOILS[kind].reason
