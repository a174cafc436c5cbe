"""Two tables compared by one number."""

from decimal import Decimal
from pathlib import Path

import pytest

from k2stream.query.engine import Engine
from k2stream.query.fingerprint import Fingerprint, table_fingerprint
from k2stream.rows import TRADES
from k2stream.testing import ParquetTable, trade_rows

ROWS = [
    {"offset": n, "trade_id": str(n), "source_sequence": n, "vendor_data": [("venue", "X"), ("file", "a")], "trade_conditions": ["a", "b"]} for n in range(10)
]


def fingerprint(folder: Path, *files: list[dict[str, object]], columns: list[str] = TRADES.names) -> Fingerprint:
    folder.mkdir()
    table = ParquetTable(folder)
    for rows in files:
        table.add(trade_rows(rows))
    with Engine() as engine:
        return table_fingerprint(engine, table.files(len(files)), columns)


def test_files_and_order_do_not_count(tmp_path: Path) -> None:
    """The same rows in another order, in other files, with a map's entries the other way round, are the same table."""
    turned = [{**row, "vendor_data": row["vendor_data"][::-1]} for row in ROWS[::-1]]

    assert fingerprint(tmp_path / "a", ROWS) == fingerprint(tmp_path / "b", turned[:3], turned[3:])


@pytest.mark.parametrize(
    "change",
    [
        {"price": Decimal("35.12000001")},
        {"timestamp": 1},
        {"source_sequence": None},
        {"source_sequence": 1},
        {"vendor_data": None},
        {"vendor_data": []},
        {"vendor_data": [("venue", "Y"), ("file", "a")]},
        {"trade_conditions": ["b", "a"]},
        {"trade_conditions": []},
        {"is_sample_data": False},
    ],
    ids=str,
)
def test_one_changed_value_shows(tmp_path: Path, change: dict[str, object]) -> None:
    """Any column of any row: another value, a null, another order of a list."""
    changed = [{**ROWS[0], **change}, *ROWS[1:]]

    assert fingerprint(tmp_path / "a", ROWS) != fingerprint(tmp_path / "b", changed)


def test_a_row_more_or_instead_shows(tmp_path: Path) -> None:
    """A row twice, a row missing, and one row twice in place of another are other tables."""
    others = [[*ROWS, ROWS[0]], ROWS[1:], [*ROWS[1:], ROWS[1]], ROWS]
    found = {fingerprint(tmp_path / str(n), rows) for n, rows in enumerate(others)}

    assert len(found) == len(others)


def test_columns_left_out_do_not_count(tmp_path: Path) -> None:
    """What a rerun may change (message ids, origin) is left out by naming the other columns."""
    moved = [{**row, "offset": row["offset"] + 100, "message_id": "another"} for row in ROWS]
    kept = [name for name in TRADES.names if name not in ("offset", "message_id")]

    assert fingerprint(tmp_path / "a", ROWS, columns=kept) == fingerprint(tmp_path / "b", moved, columns=kept)
    assert fingerprint(tmp_path / "c", columns=kept) == Fingerprint(0, 0)
