"""Frames of all venues through parser, log batch, decode, judge and settle: exactly their rows, and exactly the gaps of the frames that are left out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode.decoder import Decoder
from k2stream.dedup.bloom import SeenFilter
from k2stream.dedup.seen import RecentWindows
from k2stream.feed import binance, coinbase, kraken
from k2stream.feed.live import records_of
from k2stream.feed.recording import shipped
from k2stream.gaps import Tracker
from k2stream.number_spans import Span, of_numbers, without
from k2stream.pipeline import Judging, ask, judge, settle
from k2stream.records import Batch, LogBatch, TopicPartition
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.validate import Limits

NOW_US = 1_700_000_000_000_000
SCHEMA_ID = 7
VENUES = ("binance", "coinbase", "kraken")

Frames = Sequence[bytes]


class OneSchema:
    """A registry that knows trade_v2 under one id."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return avro_schema("trade_v2") if schema_id == SCHEMA_ID else None


@dataclass(frozen=True)
class Found:
    """What came of some frames."""

    numbers: list[tuple[str, int]]
    """Symbol and number of each row."""
    opened: dict[str, list[Span]]
    """By symbol."""
    kinds: set[str]
    duplicates: int


@cache
def module_of(venue: str) -> ModuleType:
    return {"binance": binance, "coinbase": coinbase, "kraken": kraken}[venue]


@cache
def recorded(venue: str) -> Frames:
    """Real frames; of Kraken, whose sample is one frame, its like with one to four trades each."""
    if venue == "binance":
        return tuple(shipped(binance.RECORDED).splitlines())
    if venue == "coinbase":
        return tuple(shipped("frames/coinbase_exchange_2021-04-17.jsonl.gz").splitlines())
    sample = json.loads(shipped("frames/kraken_v2_trade.json"))
    number, frames = 10218208, []
    for frame in range(120):
        trades = [{**sample["data"][0], "trade_id": number + n} for n in range(1 + frame % 4)]
        number += len(trades)
        frames.append(json.dumps({**sample, "data": trades}).encode())
    return tuple(frames)


def numbers_of(venue: str, frames: Iterable[bytes]) -> list[tuple[str, int]]:
    trades = (t for f in frames for t in module_of(venue).read(f, new_id=str, now_us=NOW_US).trades)
    return [(t["symbol"], t["source_sequence"]) for t in trades]


def captured(venue: str, frames: Frames, windows: int = 1) -> Found:
    """The frames in one partition, in so many windows."""
    topic = f"market.crypto.trades.{venue}"
    seen, recent, tracker = SeenFilter(1 << 20, 86_400_000_000, 0), RecentWindows(), Tracker("trades", 10)
    seen.set_floor(TopicPartition(topic, 0), -(1 << 62))
    ids, decoder, offset = map(str, range(1 << 30)), Decoder("trade_v2", OneSchema()), 0
    numbers: list[tuple[str, int]] = []
    opened: dict[str, list[Span]] = {}
    kinds, duplicates = set(), 0
    for number, part in enumerate(np.array_split(np.arange(len(frames)), windows)):
        rows = [t for i in part for t in module_of(venue).read(frames[i], new_id=lambda: next(ids), now_us=NOW_US).trades]
        if not rows:
            continue
        raw = build_log_batch(records_of(rows, "trade_v2", SCHEMA_ID))
        log_batch = LogBatch.parse(topic, 0, offset.to_bytes(8, "big") + raw[8:], offset)
        batch = Batch(topic, 0, offset, offset + len(rows), (log_batch,), 0)
        offset += len(rows)
        by = Judging(venue, "crypto", seen, Limits(3_600_000_000, 0), NOW_US, marked_through=-1)
        judged = judge(batch, decoder.decode(batch), by)
        assert judged.rejects == ()
        asked = ask([judged], recent)
        settled = settle(asked, np.zeros(len(asked.unsure), bool), tracker)
        recent.add(number, settled.keys)
        numbers += zip(settled.rows["symbol"].to_pylist(), settled.rows["source_sequence"].to_pylist(), strict=True)
        duplicates += sum(counts.duplicates for counts in settled.deltas.values())
        for event in settled.events.to_pylist():
            kinds.add(event["kind"])
            if event["kind"] == "opened":
                opened.setdefault(event["symbol"], []).append((event["first_sequence"], event["last_sequence"]))
    return Found(numbers, opened, kinds, duplicates)


def holes(numbers: Iterable[tuple[str, int]]) -> dict[str, list[Span]]:
    """Numbers that are missing between others, by symbol."""
    by_symbol: dict[str, set[int]] = {}
    for symbol, number in numbers:
        by_symbol.setdefault(symbol, set()).add(number)
    found = {symbol: without([(min(held), max(held))], of_numbers(held)) for symbol, held in by_symbol.items()}
    return {symbol: spans for symbol, spans in found.items() if spans}


@pytest.mark.parametrize(("venue", "rows", "repeats"), [("binance", 2001, 0), ("coinbase", 107, 0), ("kraken", 300, 0)])
def test_all_frames_give_exactly_their_rows_and_no_gap(venue: str, rows: int, repeats: int) -> None:
    """2,001 trades of Binance, 97 matches and 10 last matches of Coinbase, frames of one to four trades of Kraken."""
    found = captured(venue, recorded(venue), windows=3)
    assert (len(found.numbers), len(set(found.numbers)), found.duplicates) == (rows, rows, repeats)
    assert (found.opened, found.kinds) == ({}, set())


def test_a_last_match_after_every_reconnect_gives_no_second_row() -> None:
    """A subscription's first frame repeats the newest trade: here after every match."""
    frames = []
    for frame in recorded("coinbase"):
        frames.append(frame)
        if json.loads(frame)["type"] == "match":
            frames.append(json.dumps({**json.loads(frame), "type": "last_match"}).encode())
    found = captured("coinbase", frames, windows=7)
    assert (len(found.numbers), len(set(found.numbers)), found.duplicates) == (107, 107, 97)
    assert (found.opened, found.kinds) == ({}, set())


@pytest.mark.parametrize("venue", VENUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_removing_any_frames_gives_exactly_their_gaps(venue: str, data: st.DataObject) -> None:
    """Whatever is left out, wherever windows end: one gap a run of missing numbers, its borders exact; what is played twice changes nothing."""
    frames = recorded(venue)[:300]
    removed = data.draw(st.sets(st.integers(0, len(frames) - 1), max_size=len(frames) // 2))
    kept = [f for n, f in enumerate(frames) if n not in removed]
    again = data.draw(st.integers(0, len(kept)))
    played = [*kept[:again], *kept[max(0, again - 20) :]]  # a connection is replaced: twenty frames come twice
    found = captured(venue, played, windows=data.draw(st.integers(1, 5)))
    numbers = numbers_of(venue, kept)
    assert found.numbers == numbers
    assert found.opened == holes(numbers)
    assert found.kinds <= {"opened"}


@pytest.mark.parametrize("venue", VENUES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_was_removed_and_comes_later_fills_exactly_its_gaps(venue: str, data: st.DataObject) -> None:
    """As back-fill brings it, in any order: each trade one row, and every gap between the first and the last number ends filled."""
    frames = recorded(venue)[:200]
    removed = data.draw(st.sets(st.integers(1, len(frames) - 2), min_size=1, max_size=60))
    late = data.draw(st.permutations(sorted(removed)))
    found = captured(venue, [*(f for n, f in enumerate(frames) if n not in removed), *(frames[n] for n in late)], windows=data.draw(st.integers(1, 4)))
    assert sorted(found.numbers) == sorted(numbers_of(venue, frames))
    assert found.kinds <= {"opened", "shrunk", "filled"}
    assert ("filled" in found.kinds) == bool(found.opened)


def test_recorded_numbers_are_contiguous() -> None:
    """What the tests above rest on."""
    for venue in VENUES:
        by_symbol: dict[str, list[int]] = {}
        for symbol, number in numbers_of(venue, recorded(venue)):
            by_symbol.setdefault(symbol, []).append(number)
        assert all(b - a in (0, 1) for held in by_symbol.values() for a, b in pairwise(held)), venue
