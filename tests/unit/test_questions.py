"""The questions people ask: right answers, values bound."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from k2stream.query.engine import Engine
from k2stream.query.questions import busiest_seconds, daily_bars, trades
from k2stream.rows import TRADES
from k2stream.testing import ParquetTable, trade_rows

NOON = datetime(2014, 3, 10, 12, tzinfo=UTC)
HOSTILE = ["'; DROP TABLE trades; --", '"', "\\", "$limit", "a,b\nc", "%", "Ω", "O'Neil"]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def engine() -> Engine:
    """One engine for a test's questions."""
    with Engine() as engine:
        yield engine


@pytest.mark.parametrize("symbol", HOSTILE)
def test_a_hostile_symbol_is_only_a_symbol(engine: Engine, tmp_path: Path, symbol: str) -> None:
    """Quotes, semicolons and parameter names in a value select that symbol's rows and do nothing else."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"symbol": name, "exchange": name} for name in [*HOSTILE, "BHP"]]))

    found = trades(engine, table.files(1), symbol=symbol, exchange=symbol)

    assert [symbol] == found["symbol"].to_pylist()
    assert trades(engine, table.files(1)).num_rows == 9


def test_the_newest_come_first_and_whole(engine: Engine, tmp_path: Path) -> None:
    """The limit keeps the newest rows across files; every column is as it was written, decimals too."""
    table = ParquetTable(tmp_path)
    written = trade_rows(
        {
            "timestamp": at(n),
            "offset": n,
            "price": Decimal("9999999999.12345678"),
            "vendor_data": [("venue", "X")] if n else None,
            "trade_conditions": ["XT"] if n else [],
        }
        for n in range(6)
    )
    table.add(written.slice(3))
    table.add(written.slice(0, 3))

    found = trades(engine, table.files(2), limit=4)

    assert found.schema == TRADES
    assert written.slice(2).to_pylist()[::-1] == found.to_pylist()


def test_start_is_included_and_end_is_not(engine: Engine, tmp_path: Path) -> None:
    """Neighbouring stretches of time share no trade and miss none."""
    table = ParquetTable(tmp_path)
    for n in range(4):
        table.add(trade_rows([{"timestamp": at(n), "offset": n}]))

    assert trades(engine, table.files(4), start=at(1), end=at(3))["offset"].to_pylist() == [2, 1]
    assert trades(engine, table.files(4), end=at(1))["offset"].to_pylist() == [0]
    assert trades(engine, table.files(4), start=at(3))["offset"].to_pylist() == [3]


def test_files_that_cannot_answer_are_not_opened(engine: Engine, tmp_path: Path) -> None:
    """A missing file of another symbol, exchange or day does not disturb the answer."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"symbol": "BHP", "timestamp": at(0)}]))
    for other in ({"symbol": "RIO"}, {"exchange": "BINANCE"}, {"timestamp": at(86_400)}):
        Path(table.add(trade_rows([{"timestamp": at(0), **other}])).path).unlink()

    found = trades(engine, table.files(4), symbol="BHP", exchange="ASX", start=at(-1), end=at(1))

    assert found["symbol"].to_pylist() == ["BHP"]
    assert TRADES.empty_table() == trades(engine, table.files(4), symbol="ZZZ")


def test_bars_follow_the_order_of_the_exchange(engine: Engine, tmp_path: Path) -> None:
    """Open and close go by time, then sequence; rows of one millisecond lie in any order on disk."""
    table = ParquetTable(tmp_path)
    prices = [(0, 1, "10", 1), (0, 2, "12", 2), (60, 3, "9", 3), (60, 4, "11.5", 4)]
    rows = [{"timestamp": at(s), "source_sequence": n, "price": Decimal(p), "quantity": Decimal(q)} for s, n, p, q in prices]
    table.add(trade_rows(rows[::-1]))
    table.add(trade_rows([{"timestamp": at(86_400), "price": Decimal("0.00000001")}]))

    first, second = daily_bars(engine, table.files(2)).to_pylist()

    assert {
        "day": date(2014, 3, 10),
        "exchange": "ASX",
        "symbol": "BHP",
        "trades": 4,
        "open": Decimal("10"),
        "high": Decimal("12"),
        "low": Decimal("9"),
        "close": Decimal("11.5"),
        "volume": Decimal(10),
        "vwap": Decimal("10.7"),
    } == first
    assert (date(2014, 3, 11), Decimal("0.00000001")) == (second["day"], second["vwap"])


def test_the_busiest_second_is_first(engine: Engine, tmp_path: Path) -> None:
    """Trades are counted by whole second and symbol."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"timestamp": at(s)} for s in (0.1, 1.0, 1.2, 1.999999, 2.0)]))

    found = busiest_seconds(engine, table.files(1), limit=2).to_pylist()

    assert [(at(1), 3), (at(0), 1)] == [(row["second"], row["trades"]) for row in found]
