"""Rows by the offsets they came from."""

from pathlib import Path

import pytest

from k2stream.query.engine import Engine
from k2stream.query.origin import KEYS, ORIGINS, keys_between, rows_of
from k2stream.records import TopicPartition
from k2stream.testing import ParquetTable, trade_rows

TOPIC = "market.equities.trades.asx"
HOME = TopicPartition(TOPIC, 1)


@pytest.fixture
def table(tmp_path: Path) -> ParquetTable:
    """Two files; partition 1 has offsets 0-5, written out of order and beside partition 0's and another topic's."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"partition": 1, "offset": n, "symbol": "BHP" if n % 2 else "RIO", "source_sequence": n} for n in (3, 1, 0)]))
    table.add(trade_rows([{"partition": 1, "offset": n, "source_sequence": None} for n in (5, 2, 4)]))
    table.add(trade_rows([{"partition": 0, "offset": 2}, {"topic": TOPIC + "x", "partition": 1, "offset": 2}]))
    return table


@pytest.mark.parametrize(("first", "stop", "expected"), [(0, 6, [0, 1, 2, 3, 4, 5]), (2, 4, [2, 3]), (5, 99, [5]), (6, 99, []), (3, 3, []), (4, 2, [])])
def test_rows_of_one_partition_come_in_offset_order(table: ParquetTable, first: int, stop: int, expected: list[int]) -> None:
    """Exactly the rows of `[first, stop)`, ordered, with no neighbour's among them."""
    with Engine() as engine:
        rows = rows_of(table.files(3), HOME, first, stop, engine=engine)

    assert expected == rows["offset"].to_pylist()
    assert rows.schema == ORIGINS
    assert {HOME} >= set(zip(rows["topic"].to_pylist(), rows["partition"].to_pylist(), strict=True))


def test_files_of_other_origins_are_not_opened(table: ParquetTable, tmp_path: Path) -> None:
    """Bounds of topic, partition and offset spare a file that cannot hold the rows asked for."""
    (tmp_path / "00001.parquet").unlink()
    (tmp_path / "00002.parquet").unlink()

    assert rows_of(table.files(3), HOME, 0, 2)["offset"].to_pylist() == [0, 1]


def test_an_empty_table_has_no_rows() -> None:
    """No file, no rows, and the columns all the same."""
    assert rows_of([], HOME, 0, 10) == ORIGINS.empty_table()
    assert keys_between([], start_us=0, stop_us=1) == KEYS.empty_table()


def test_keys_between_times_include_the_first_and_not_the_last(tmp_path: Path) -> None:
    """A filter is refilled from a half-open stretch of event time."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"trade_id": str(us), "timestamp": us} for us in (9, 10, 19, 20)]))

    keys = keys_between(table.files(1), start_us=10, stop_us=20)

    assert sorted(keys["trade_id"].to_pylist()) == ["10", "19"]
    assert keys.schema == KEYS
