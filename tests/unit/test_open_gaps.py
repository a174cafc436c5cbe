"""Which gaps back-fill asks for, and which of their numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.query.engine import Engine
from k2stream.query.open_gaps import missing_numbers, open_gaps
from k2stream.rows import TIMESTAMP
from k2stream.table_file import TableFile
from k2stream.testing import ParquetTable, gap_events, trade_rows

NINE_US = 1_394_400_000_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def gaps_of(folder: Path, *events: Mapping[str, object]) -> list[TableFile]:
    """The gaps table with these events, each written a second after the one before."""
    folder.mkdir()
    table = ParquetTable(folder)
    written = pa.array([NINE_US + n * 1_000_000 for n in range(len(events))], TIMESTAMP)
    table.add(gap_events({"event_id": str(n), **event} for n, event in enumerate(events)).append_column("written_at", written))
    return table.files(1)


def test_a_gap_is_open_though_another_of_its_range_was_closed_twice(engine: Engine, tmp_path: Path) -> None:
    """Two sessions miss the same numbers; the older gap was waived and then filled, and says nothing of the newer one."""
    old, new = {"gap_id": "a"}, {"gap_id": "b", "timestamp": NINE_US + 60_000_000, "offset": 9}
    files = gaps_of(
        tmp_path / "g",
        old,
        {**old, "kind": "waived", "waived_by": "ann", "waived_because": "holiday"},
        {**old, "kind": "filled", "missing": 0},
        new,
        {**new, "kind": "shrunk", "missing": 1},
    )

    assert [(gap.first, gap.last, gap.missing, gap.next_us) for gap in open_gaps(engine, files, exchange="ASX", data_type="trades")] == [
        (2, 3, 1, NINE_US + 60_000_000)
    ]
    assert open_gaps(engine, files, exchange="BINANCE") == open_gaps(engine, files, data_type="quotes") == open_gaps(engine, []) == []


def test_what_was_waived_or_filled_is_not_asked_for(engine: Engine, tmp_path: Path) -> None:
    """A person accepted the one, the other has come; of what is open, only numbers without a row are missing."""
    waived, filled, gap = {"gap_id": "a", "symbol": "A"}, {"gap_id": "b", "symbol": "B"}, {"gap_id": "c", "last_sequence": 6, "missing": 5}
    files = gaps_of(tmp_path / "g", waived, {**waived, "kind": "waived"}, filled, {**filled, "kind": "filled", "missing": 0}, gap)
    (tmp_path / "t").mkdir()
    trades = ParquetTable(tmp_path / "t")
    trades.add(trade_rows({"source_sequence": n, "offset": n} for n in (1, 4, 7)))

    (found,) = open_gaps(engine, files)

    assert (found.symbol, found.missing, found.cause) == ("BHP", 5, "upstream")
    assert missing_numbers(engine, trades.files(1), found) == [(2, 3), (5, 6)]
