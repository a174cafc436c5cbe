"""Answers as text."""

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from k2stream.query.format import as_text
from k2stream.testing import trade_rows

ANSWER = trade_rows(
    [
        {
            "symbol": 'a,"b"\nc',
            "price": Decimal("0.00000001"),
            "timestamp": datetime(2014, 3, 10, 1, 2, 3, 4, tzinfo=UTC),
            "trade_conditions": ["XT", "S"],
            "vendor_data": [("venue", "X")],
        },
        {"symbol": "BHP\x1b[31m", "source_sequence": None},
    ]
)


def test_json_keeps_every_digit() -> None:
    """Decimals and times are strings that read back equal; maps are objects, nulls are null."""
    first, second = json.loads(as_text(ANSWER, "json"))

    assert (
        first["price"],
        first["timestamp"],
        first["vendor_data"],
        first["trade_conditions"],
    ) == ("0.00000001", "2014-03-10T01:02:03.000004Z", {"venue": "X"}, ["XT", "S"])
    assert (second["vendor_data"], second["source_sequence"], second["trade_conditions"], second["is_sample_data"]) == (None, None, [], True)


def test_csv_reads_back_cell_by_cell() -> None:
    """Commas, quotes and line breaks of a value stay in their cell."""
    first, second = csv.DictReader(io.StringIO(as_text(ANSWER, "csv"), newline=""))

    assert (first["symbol"], first["price"], first["trade_conditions"]) == ('a,"b"\nc', "0.00000001", '["XT", "S"]')
    assert (second["source_sequence"], second["vendor_data"]) == ("", "")


def test_a_table_is_one_line_a_row() -> None:
    """Control characters are shown and not obeyed; numbers stand to the right."""
    text = as_text(pa.table({"symbol": ["a\nb", "c\x1b[31m"], "trades": [1, 100]}), "table")

    assert text.splitlines() == ["symbol     trades", "---------  ------", "a\\nb            1", "c\\x1b[31m     100", "(2 rows)"]


@pytest.mark.parametrize(("form", "expected"), [("json", "[]\n"), ("csv", "day\r\n"), ("table", "day\n---\n(0 rows)\n")])
def test_an_empty_answer_is_still_an_answer(form: str, expected: str) -> None:
    """No rows: the columns' names, and no failure."""
    assert expected == as_text(pa.table({"day": pa.array([], pa.date32())}), form)


def test_dates_and_dictionaries_are_plain() -> None:
    """A day is ISO 8601; an encoded column reads like any other."""
    answer = pa.table({"day": [date(2014, 3, 10)], "side": pa.array(["BUY"]).dictionary_encode()})

    assert json.loads(as_text(answer, "json")) == [{"day": "2014-03-10", "side": "BUY"}]
