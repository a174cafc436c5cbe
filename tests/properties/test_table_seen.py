"""TableSeen against a look-up in Python's own sets."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.query.engine import Engine
from k2stream.query.seen import TableSeen
from k2stream.testing import ParquetTable, trade_rows

HOUR_US = 3_600_000_000
HOSTILE = ["BHP", "bhp", "", "O'Neil", '"; DROP TABLE t; --', "$symbol", "Ω", "BHP\x00", "x" * 40]
KEYS = st.fixed_dictionaries(
    {
        "exchange": st.sampled_from(["ASX", "BINANCE"]),
        "symbol": st.sampled_from(HOSTILE),
        "trade_id": st.integers(0, 3).map(str),
        # around whole hours, so that differences hit the tolerance exactly, and miss it by one
        "timestamp": st.builds(lambda hour, us: hour * HOUR_US + us, st.integers(-2, 4), st.integers(-1, 1)),
    }
)
FILES = st.lists(st.lists(KEYS, min_size=1, max_size=8), max_size=4)


def oracle(held: list[dict[str, object]], asked: list[dict[str, object]], tolerance_us: int) -> list[bool]:
    """Row by row: is there a row of the same native id near enough in time?"""
    name = ("exchange", "symbol", "trade_id")
    return [
        any(all(row[n] == question[n] for n in name) and abs(row["timestamp"] - question["timestamp"]) <= tolerance_us for row in held) for question in asked
    ]


def ask(seen: TableSeen, asked: list[dict[str, object]], snapshot_id: int, *, dictionary: bool = False) -> list[bool]:
    rows = trade_rows(asked)
    columns = [rows[name].combine_chunks() for name in ("exchange", "symbol", "trade_id", "timestamp")]
    if dictionary:
        columns[:2] = [column.dictionary_encode() for column in columns[:2]]
    mask = seen(*columns, snapshot_id)
    assert mask.dtype == np.bool_
    return mask.tolist()


@settings(max_examples=60, deadline=None)
@given(files=FILES, asked=st.lists(KEYS, max_size=12), tolerance=st.sampled_from([0, 1, HOUR_US]), older=st.booleans())
def test_seen_equals_the_row_by_row_oracle(files: list[list[dict[str, object]]], asked: list[dict[str, object]], tolerance: int, older: bool) -> None:
    """For any files and question the mask is the oracle's, at the snapshot asked for and not a later one."""
    with TemporaryDirectory() as folder:
        table = ParquetTable(Path(folder))
        for rows in files:
            table.add(trade_rows(rows))
        snapshot_id = max(0, len(files) - 1) if older else len(files)
        with Engine() as engine:
            seen = TableSeen(table.files, tolerance, engine=engine)
            held = [row for rows in files[:snapshot_id] for row in rows]

            assert oracle(held, asked, tolerance) == ask(seen, asked, snapshot_id, dictionary=older)


def test_times_at_the_ends_of_the_calendar_do_not_overflow(tmp_path: Path) -> None:
    """A row dated year 1 or 9999 is looked up like any other: the tolerance stops at the calendar's ends."""
    table = ParquetTable(tmp_path)
    ends = [{"timestamp": datetime.min.replace(tzinfo=UTC)}, {"timestamp": datetime.max.replace(tzinfo=UTC), "trade_id": "last"}]
    table.add(trade_rows(ends))
    with Engine() as engine:
        seen = TableSeen(table.files, HOUR_US, engine=engine)

        assert ask(seen, ends, 1) == [True, True]


def test_chunked_columns_are_looked_up_too(tmp_path: Path) -> None:
    """Columns of a table with several chunks give one mask in row order."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"trade_id": "2"}]))
    rows = pa.concat_tables([trade_rows([{"trade_id": "1"}]), trade_rows([{"trade_id": "2"}])])
    with Engine() as engine:
        seen = TableSeen(table.files, 0, engine=engine)

        assert seen(rows["exchange"], rows["symbol"], rows["trade_id"], rows["timestamp"], 1).tolist() == [False, True]
