"""What is expected, received, missing, late and double of a symbol, interval by interval."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.gaps import EVENTS, Notes, Tracker
from k2stream.lake.offsets import Entry
from k2stream.quality.checks import Checks, Thresholds
from k2stream.query.completeness import Ledger, completeness, marked_bars
from k2stream.query.engine import Engine
from k2stream.query.questions import daily_bars
from k2stream.records import TopicPartition
from k2stream.rows import TIMESTAMP
from k2stream.testing import A_TRADE, ParquetTable, trade_rows

NINE = datetime(2014, 3, 10, 9, tzinfo=UTC)
TP = TopicPartition(str(A_TRADE["topic"]), 0)
COUNTS = ("received", "missing", "waived", "expected", "late", "is_complete")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


class Tables:
    """Trades told as (minutes after nine, number), and the gap events that come of them."""

    def __init__(self, folder: Path, trades: list[tuple[float, int | None]], *, symbol: str = "BHP", waives: bool = False) -> None:
        rows = trade_rows(
            {"timestamp": NINE + timedelta(minutes=m), "source_sequence": n, "offset": i, "symbol": symbol, "price": Decimal(i + 1)}
            for i, (m, n) in enumerate(trades)
        )
        events = Tracker("trades", 10).settle(rows, Notes())
        if waives:
            opened = [{**e, "event_id": "w", "kind": "waived"} for e in events.to_pylist() if e["kind"] == "opened"]
            events = pa.concat_tables([events, pa.Table.from_pylist(opened, schema=EVENTS)])
        written = pa.array([NINE] * events.num_rows, TIMESTAMP)
        (folder / "t").mkdir(parents=True)
        (folder / "g").mkdir()
        self.trades, self.gaps = ParquetTable(folder / "t"), ParquetTable(folder / "g")
        self.trades.add(rows)
        self.gaps.add(events.append_column("written_at", written))
        self.ledger = Ledger(self.trades.files(1), self.gaps.files(1))


def said(engine: Engine, ledger: Ledger, seconds: int = 60, **asked: datetime) -> list[tuple[object, ...]]:
    """Minute of each interval and its counts."""
    found = completeness(engine, ledger, interval_seconds=seconds, **asked)
    return [((row["start"] - NINE) // timedelta(minutes=1), *(row[name] for name in COUNTS)) for row in found.to_pylist()]


def test_a_hole_counts_where_it_is_seen_and_marks_every_interval_it_crosses(engine: Engine, tmp_path: Path) -> None:
    """Also those without any row: a bar that is not there would otherwise look like a quiet minute."""
    tables = Tables(tmp_path, [(0, 1), (0.5, 2), (3.2, 6), (4, 7)])

    assert said(engine, tables.ledger) == [
        (0, 2, 0, 0, 2, 0, False),
        (1, 0, 0, 0, 0, 0, False),
        (2, 0, 0, 0, 0, 0, False),
        (3, 1, 3, 0, 4, 0, False),
        (4, 1, 0, 0, 1, 0, True),
    ]


def test_what_came_late_is_late_and_no_longer_missing(engine: Engine, tmp_path: Path) -> None:
    """By its own event time; a hole that is filled marks nothing."""
    tables = Tables(tmp_path, [(0, 1), (2, 4), (1, 2), (1.5, 3), (3, 9), (2.5, 5)])

    assert said(engine, tables.ledger) == [
        (0, 1, 0, 0, 1, 0, True),
        (1, 2, 0, 0, 2, 2, True),
        (2, 2, 0, 0, 2, 1, False),
        (3, 1, 3, 0, 4, 0, False),
    ]


def test_what_a_person_accepted_is_expected_but_not_missing(engine: Engine, tmp_path: Path) -> None:
    """Waived numbers make no bar incomplete, and are not hidden."""
    tables = Tables(tmp_path, [(0, 1), (1, 4)], waives=True)

    assert said(engine, tables.ledger) == [(0, 1, 0, 0, 1, 0, True), (1, 1, 0, 2, 3, 0, True)]


def test_without_numbers_nobody_knows(engine: Engine, tmp_path: Path) -> None:
    """A feed that does not number its trades is neither complete nor incomplete."""
    tables = Tables(tmp_path, [(0, None), (1, None)])

    assert said(engine, tables.ledger) == [(0, 1, 0, 0, None, 0, None), (1, 1, 0, 0, None, 0, None)]


def test_an_interval_asked_for_is_cut_there(engine: Engine, tmp_path: Path) -> None:
    """A hole that reaches into the range from outside still marks what is inside, and nothing beyond."""
    tables = Tables(tmp_path, [(0, 1), (9, 5), (9.5, 6)])

    asked = {"start": NINE + timedelta(minutes=7), "end": NINE + timedelta(minutes=9)}

    assert [row[0] for row in said(engine, tables.ledger, **asked)] == [7, 8]
    asked["end"] = NINE + timedelta(minutes=10)
    assert [row[0] for row in said(engine, tables.ledger, **asked)] == [7, 8, 9]


def test_a_hole_whose_two_rows_are_timed_the_wrong_way_round_is_seen(engine: Engine, tmp_path: Path) -> None:
    """The row behind it is of an earlier minute: what is missing counts there, and both minutes are incomplete, also where only one is asked for."""
    tables = Tables(tmp_path, [(0.5, 1), (2.5, 2), (0.7, 6), (3, 7)])

    assert said(engine, tables.ledger) == [
        (0, 2, 3, 0, 5, 0, False),
        (1, 0, 0, 0, 0, 0, False),
        (2, 1, 0, 0, 1, 0, False),
        (3, 1, 0, 0, 1, 0, True),
    ]
    for minute, counts in ((0, (2, 3, 0, 5, 0, False)), (2, (1, 0, 0, 1, 0, False))):
        asked = {"start": NINE + timedelta(minutes=minute), "end": NINE + timedelta(minutes=minute + 1)}
        assert said(engine, tables.ledger, **asked) == [(minute, *counts)]


def test_a_hole_without_a_row_before_it_is_seen(engine: Engine, tmp_path: Path) -> None:
    """It lies where the row behind it stands, however much is asked for."""
    tables = Tables(tmp_path, [(0, 1), (1, 4)])
    events = engine.ask("SELECT * FROM read_parquet($files)", files=tables.ledger.gaps)
    place = events.column_names.index("previous_timestamp")
    (tmp_path / "first").mkdir()
    first = ParquetTable(tmp_path / "first")
    first.add(events.set_column(place, "previous_timestamp", pa.nulls(events.num_rows, TIMESTAMP)))
    ledger = Ledger(tables.ledger.rows, first.files(1))

    assert said(engine, ledger)[1] == (1, 1, 2, 0, 3, 0, False)
    assert said(engine, ledger, start=NINE, end=NINE + timedelta(minutes=2)) == [(0, 1, 0, 0, 1, 0, True), (1, 1, 2, 0, 3, 0, False)]


def test_duplicates_are_those_that_were_flagged(engine: Engine, tmp_path: Path) -> None:
    """Per symbol and interval, from the table of flags; other flags are none."""
    tables = Tables(tmp_path, [(0, 1), (1, 2)])
    (tmp_path / "q").mkdir()
    quality = ParquetTable(tmp_path / "q")
    doubles = trade_rows([{"timestamp": NINE, "offset": 5}, {"timestamp": NINE + timedelta(seconds=59), "offset": 6}])
    quality.add(Checks("trades", Thresholds(10, 8, 100, 1)).flag(tables_rows(engine, tables), doubles))

    found = completeness(engine, Ledger(tables.ledger.rows, tables.ledger.gaps, quality.files(1)), interval_seconds=60)

    assert found["duplicates"].to_pylist() == [2, 0]


def test_duplicates_of_redundant_topics_are_not_said_to_be_none(engine: Engine, tmp_path: Path) -> None:
    """Nobody flags the second report of a second feed, so nobody knows how many there were in an interval."""
    ledger = Tables(tmp_path, [(0, 1), (1, 2)]).ledger

    for exchanges, said_of_each in ((["ASX"], None), (["BINANCE"], 0)):
        found = completeness(engine, replace(ledger, redundant=exchanges), interval_seconds=60)
        assert found["duplicates"].to_pylist() == [said_of_each] * 2


def tables_rows(engine: Engine, tables: Tables) -> pa.Table:
    return engine.ask("SELECT * FROM read_parquet($files)", files=tables.ledger.rows)


def test_at_an_older_snapshot_gaps_are_as_they_were(engine: Engine, tmp_path: Path) -> None:
    """The same receipt gives the same marks, though what was missing then has come since."""
    tables = Tables(tmp_path, [(0, 1), (1, 3), (0.5, 2)])

    then = Ledger(tables.ledger.rows, tables.ledger.gaps, reach={TP: Entry(0, 2)})

    assert [row[-1] for row in said(engine, tables.ledger)] == [True, True]
    assert [row[-1] for row in said(engine, then)] == [False, False]


def test_bars_say_on_what_they_were_built(engine: Engine, tmp_path: Path) -> None:
    """A bar of a day with a hole says so and how much is missing; the day after is whole."""
    day = 24 * 60
    tables = Tables(tmp_path, [(0, 1), (1, 5), (day, 6), (day + 1, 7)])

    bars = daily_bars(engine, tables.ledger.rows)
    found = marked_bars(engine, bars, completeness(engine, tables.ledger)).to_pylist()

    assert [(bar["day"], bar["missing"], bar["is_complete"]) for bar in found] == [(date(2014, 3, 10), 3, False), (date(2014, 3, 11), 0, True)]
