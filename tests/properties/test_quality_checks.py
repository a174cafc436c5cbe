"""Flags equal those of a loop that looks at one row after the other, wherever windows are cut."""

import pickle
from decimal import Decimal
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.quality import feeds
from k2stream.quality.checks import DAY_US, LEAST, STEP_LIMIT_PPM, STILL_PPM, Checks, Thresholds
from k2stream.quality.feeds import Reporters
from k2stream.quality.flags import FLAGS, Flag
from k2stream.records import TopicPartition
from k2stream.testing import A_TRADE, trade_rows

LIMITS = Thresholds(price_move_percent=10, price_deviations=6, volume_times=20, stale_us=60_000_000)
START_US = 1_394_409_599_000_000 - 40_000_000
TP = TopicPartition(str(A_TRADE["topic"]), 0)

TRADES = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["BHP", "CBA"]),
        "exchange": st.sampled_from(["ASX", "ASX", "ASX", "NYSE"]),
        "step": st.sampled_from([0, 0, 1, -1, 2, 80, -80, 150, 400]),
        "quantity": st.sampled_from([1, 2, 3, 3, 39, 41, 500]),
        "wait_us": st.sampled_from([0, 1_000_000, 1_000_000, 60_000_000, 60_000_001, -90_000_000, DAY_US]),
        "ahead": st.sampled_from([False, False, False, True]),
    }
)


def rows_from(trades: list[dict[str, Any]]) -> pa.Table:
    """A walk of each price; times that jump and fall back."""
    rows, price, now = [], 1_000, START_US
    for offset, trade in enumerate(trades):
        price, now = max(100, price + trade["step"]), now + trade["wait_us"]
        rows.append(
            {
                "symbol": trade["symbol"],
                "exchange": trade["exchange"],
                "price": Decimal(price),
                "quantity": Decimal(trade["quantity"]),
                "timestamp": now,
                "ingestion_timestamp": now - 1 if trade["ahead"] else now,
                "offset": offset,
            }
        )
    return trade_rows(rows)


class Oracle:
    """Everything remembered, one stream key."""

    def __init__(self) -> None:
        self.price: Decimal | None = None
        self.newest: int | None = None
        self.day: tuple[int, list[int], list[int]] = (-1, [], [])

    def flags(self, row: dict[str, Any]) -> set[str]:
        found, now, price, quantity = set(), row["timestamp"], row["price"], int(row["quantity"])
        if self.newest is not None and now - self.newest > LIMITS.stale_us:
            found.add("stale")
        self.newest = now if self.newest is None else max(now, self.newest)
        if self.day[0] != self.newest // DAY_US:
            self.day = (self.newest // DAY_US, [], [])
        _, steps, quantities = self.day
        if self.price is not None:
            change = float(price) / float(self.price) - 1
            if abs(change) * 100 > LIMITS.price_move_percent:
                found.add("price_move")
            if len(steps) >= LEAST:
                mean = fmean(steps)
                deviation = max((sum(s * s for s in steps) / len(steps) - mean * mean), STILL_PPM**2) ** 0.5
                if abs(change * 1e6 - mean) > LIMITS.price_deviations * deviation:
                    found.add("price_outlier")
            steps.append(int(np.clip(np.rint(change * 1e6), -STEP_LIMIT_PPM, STEP_LIMIT_PPM)))
        if len(quantities) >= LEAST and quantity * len(quantities) > LIMITS.volume_times * sum(quantities):
            found.add("volume_spike")
        quantities.append(quantity)
        self.price = price
        if row["ingestion_timestamp"] < now:
            found.add("ahead_of_ingestion")
        return found


def expected(rows: pa.Table) -> dict[int, set[str]]:
    streams: dict[tuple[str, str], Oracle] = {}
    found = {}
    times = {name: rows[name].cast(pa.int64()).to_pylist() for name in ("timestamp", "ingestion_timestamp")}
    for n, row in enumerate(rows.to_pylist()):
        row |= {name: values[n] for name, values in times.items()}
        if flags := streams.setdefault((row["exchange"], row["symbol"]), Oracle()).flags(row):
            found[row["offset"]] = flags
    return found


@settings(deadline=None, max_examples=120)
@given(trades=st.lists(TRADES, min_size=1, max_size=30), calm=st.integers(0, 80), cuts=st.sets(st.integers(0, 110), max_size=5))
def test_flags_equal_the_slow_definition(trades: list[dict[str, Any]], calm: int, cuts: set[int]) -> None:
    """After a calm stretch, over midnight, with late rows, in windows cut anywhere."""
    quiet = {"symbol": "BHP", "exchange": "ASX", "step": 1, "quantity": 2, "wait_us": 1_000, "ahead": False}
    rows = rows_from([*[{**quiet, "step": (-1) ** n} for n in range(calm)], *trades])
    checks, found = Checks("trades", LIMITS), {}
    edges = sorted({0, *(c for c in cuts if c < rows.num_rows), rows.num_rows})
    for first, end in pairwise(edges):
        flags = checks.flag(rows.slice(first, end - first))
        assert flags.schema == FLAGS
        found |= {row["offset"]: set(row["flags"]) for row in flags.to_pylist()}

    assert found == expected(rows)


def test_duplicates_are_flagged_with_their_origin() -> None:
    """Records that made no row are known by topic, partition and offset."""
    rows = trade_rows([{"offset": 7}, {"offset": 8, "symbol": "CBA"}])
    found = Checks("trades", LIMITS).flag(rows.slice(0, 0), rows).to_pylist()
    assert [(row["origin"], row["symbol"], row["flags"], row["price_change"]) for row in found] == [
        (f"{TP.topic}/0/7", "BHP", [Flag.DUPLICATE], None),
        (f"{TP.topic}/0/8", "CBA", [Flag.DUPLICATE], None),
    ]


def test_a_partition_that_left_is_forgotten() -> None:
    """A price of hours ago says nothing of the next one that this worker sees."""
    checks = Checks("trades", LIMITS)
    checks.flag(trade_rows([{"price": Decimal(10)}]))
    checks.keep({TP})
    assert checks.flag(trade_rows([{"price": Decimal(20), "offset": 1}])).num_rows == 1
    checks.keep(set())
    assert checks.flag(trade_rows([{"price": Decimal(40), "offset": 2}])).num_rows == 0


REPORTS = st.lists(
    st.tuples(st.sampled_from("st"), st.none() | st.dictionaries(st.sampled_from(["feed", "pair"]), st.sampled_from(["a", "b", "", "backfill"])))
)


@given(reports=REPORTS, cuts=st.sets(st.integers(0, 20), max_size=4))
def test_feeds_of_a_topic_are_found_wherever_their_rows_are_cut(reports: list[tuple[str, dict[str, str] | None]], cuts: set[int]) -> None:
    """Slices, several topics and chunks, rows that say nothing: as each row's own word says."""
    reports.sort(key=lambda report: report[0])
    rows = pa.concat_tables([trade_rows([]), *(trade_rows([{"topic": topic, "vendor_data": said}]) for topic, said in reports)])
    reporters = Reporters()
    for first, end in pairwise(sorted({0, *(c for c in cuts if c < rows.num_rows), rows.num_rows})):
        reporters.note(rows.slice(first, end - first))
    assert set(reporters.shared()) == {topic for topic, names in feeds_said(reports).items() if len(names) > 1}
    whole = Reporters()
    whole.note(rows.combine_chunks())
    assert whole.shared() == reporters.shared()


def feeds_said(reports: list[tuple[str, dict[str, str] | None]]) -> dict[str, set[str]]:
    return {topic: {(said or {}).get("feed", "") for t, said in reports if t == topic} - {"backfill"} for topic, _ in reports}


def test_a_feed_that_is_gone_is_forgotten_and_one_that_comes_back_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed renamed in a worker's life is no second one for ever: what it says twice is flagged again, in time."""
    monkeypatch.setattr(feeds, "LOOKS", 5)
    checks, none = Checks("trades", LIMITS), trade_rows([])
    old, new = (trade_rows([{"vendor_data": {"feed": name}}]) for name in ("old", "new"))
    checks.flag(old)
    assert [checks.flag(none, new).num_rows for _ in range(6)] == [0, 0, 0, 0, 1, 1]
    assert checks.flag(none, old).num_rows == 0


def test_names_without_end_take_no_memory_without_end() -> None:
    """A feed that gives every record a name of its own, however long, is remembered by a few."""
    reporters = Reporters()
    for look in range(50):
        reporters.note(trade_rows([{"vendor_data": {"feed": f"{look}-{n}" + "x" * 1_000}} for n in range(20)]))
    assert len(pickle.dumps(reporters)) < 3_000
    assert len(reporters.shared()) == 1


def test_a_feed_that_repeats_itself_is_flagged_though_it_has_a_name() -> None:
    """Nobody else reports its trades; back-fill asks for what it had missed and is no second feed."""
    checks = Checks("trades", LIMITS)
    rows = trade_rows([{"offset": n, "vendor_data": {"feed": feed}} for n, feed in enumerate(["a", "a", "backfill", "a"])])
    assert checks.flag(rows.slice(0, 3), rows.slice(3)).column("offset").to_pylist() == [3]


def test_second_reports_that_come_in_windows_of_their_own_are_expected() -> None:
    """A quiet market: one feed's row fills a window, the other's report the next; once both were met none is flagged."""
    checks, none = Checks("trades", LIMITS), trade_rows([])
    mine, others = (trade_rows([{"vendor_data": said}]) for said in ({"feed": "a"}, None))
    assert checks.flag(mine).num_rows == 0
    for _ in range(3):
        assert checks.flag(none, others).num_rows == checks.flag(none, mine).num_rows == 0
    checks.keep(set())
    assert checks.flag(none, others).num_rows == 1, "one name alone: the memory begins anew"
