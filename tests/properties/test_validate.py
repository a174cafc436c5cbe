"""Validation: vectorised verdicts equal those of a loop that reads one row at a time."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.testing import trade_rows
from k2stream.validate import Limits, validate
from k2stream.verdict import Reason

NOW = 1_400_000_000_000_000
DAY = 86_400_000_000
DICTIONARY = pa.dictionary(pa.int32(), pa.string())
WORDS = ("symbol", "exchange", "asset_class", "side", "currency", "topic")

ROWS = st.fixed_dictionaries(
    {
        "message_id": st.sampled_from(["m", ""]),
        "trade_id": st.sampled_from(["ASX-1", "", "é"]),
        "symbol": st.sampled_from(["BHP", "CBA", ""]),
        "exchange": st.sampled_from(["ASX", "asx", "AsX", "NYSE", ""]),
        "asset_class": st.sampled_from(["equities", "crypto"]),
        "side": st.sampled_from(["BUY", "SELL", "SELL_SHORT", "UNKNOWN", "HOLD"]),
        "price": st.sampled_from([Decimal("0.00000001"), Decimal(0), Decimal(-1), Decimal("9999999999.99999999")]),
        "quantity": st.sampled_from([Decimal(1), Decimal(0), Decimal("-0.00000001")]),
        "timestamp": st.sampled_from([NOW, NOW - DAY, NOW - DAY - 1, NOW + 60, NOW + 61, -(2**63), 2**63 - 1]),
        "ingestion_timestamp": st.sampled_from([NOW, NOW, 2**63 - 1, -(2**63)]),
    }
)


def expected_reason(row: dict[str, Any], limits: Limits) -> Reason | None:
    """The oracle: one row, rule after rule."""
    checks = [
        (row["message_id"] != "", Reason.MESSAGE_ID_REQUIRED),
        (row["trade_id"] != "", Reason.TRADE_ID_REQUIRED),
        (row["symbol"] != "", Reason.SYMBOL_REQUIRED),
        (row["exchange"].upper() == "ASX", Reason.INVALID_EXCHANGE),
        (row["asset_class"] == "equities", Reason.INVALID_ASSET_CLASS),
        (row["side"] in {"BUY", "SELL", "SELL_SHORT", "UNKNOWN"}, Reason.INVALID_SIDE),
        (row["price"] > 0, Reason.PRICE_MUST_BE_POSITIVE),
        (row["quantity"] > 0, Reason.QUANTITY_MUST_BE_POSITIVE),
        (row["timestamp"] - min(row["ingestion_timestamp"], NOW) <= limits.max_ahead_us, Reason.TIMESTAMP_IN_FUTURE),
        (limits.max_age_us == 0 or NOW - row["timestamp"] <= limits.max_age_us, Reason.TIMESTAMP_TOO_OLD),
    ]
    return next((reason for holds, reason in checks if not holds), None)


def encoded(rows: pa.Table) -> pa.Table:
    """The same rows with words as dictionaries and two chunks, as decode hands them on."""
    for name in WORDS:
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, rows[name].cast(DICTIONARY))
    return pa.concat_tables([rows.slice(0, 2), rows.slice(2)])


@settings(deadline=None, max_examples=200)
@given(st.lists(ROWS, min_size=1, max_size=8), st.sampled_from([0, DAY]), st.booleans())
def test_verdicts_equal_those_of_a_loop(given_rows: list[dict[str, Any]], max_age_us: int, as_dictionary: bool) -> None:
    """Every row is refused for the first rule it breaks, and only then, however its columns are encoded."""
    limits = Limits(max_ahead_us=60, max_age_us=max_age_us)
    rows = trade_rows({**row, "offset": 100 + i} for i, row in enumerate(given_rows))
    reasons = ((i, 100 + i, expected_reason(row, limits)) for i, row in enumerate(given_rows))
    expected = [(i, offset, reason) for i, offset, reason in reasons if reason is not None]
    invalid = validate(encoded(rows) if as_dictionary else rows, exchange="ASX", asset_class="equities", now_us=NOW, limits=limits)
    assert expected == [(i.row, i.offset, i.reason) for i in invalid]


def test_unused_dictionary_entries_refuse_nobody() -> None:
    """A bad word that stays in a dictionary after its row was sliced away is not held against the others."""
    rows = encoded(trade_rows([{"symbol": "", "exchange": "NYSE"}, {}, {}])).slice(1)
    limits = Limits(max_ahead_us=60, max_age_us=0)
    assert validate(rows, exchange="ASX", asset_class="equities", now_us=NOW, limits=limits) == []


def test_the_text_says_what_was_found() -> None:
    """A person reads what was expected and what came, far times included."""
    rows = trade_rows([{"price": Decimal(-2)}, {"timestamp": 2**63 - 1}])
    limits = Limits(max_ahead_us=60, max_age_us=0)
    texts = [i.text for i in validate(rows, exchange="ASX", asset_class="equities", now_us=NOW, limits=limits)]
    assert texts == [
        "price must be greater than 0, found '-2.00000000'",
        "timestamp must be at most 60 microseconds after ingestion_timestamp and after now, found 9223372036854775807",
    ]


def test_a_row_from_the_year_2100_is_refused_whatever_its_ingestion_time_says() -> None:
    """One feed with a wrong clock must not move the table's watermark by a lifetime: both times may be wrong together."""
    year_2100 = 4_102_444_800_000_000
    rows = trade_rows([{"timestamp": year_2100, "ingestion_timestamp": year_2100}, {"timestamp": NOW + 60, "ingestion_timestamp": year_2100}])
    (invalid,) = validate(rows, exchange="ASX", asset_class="equities", now_us=NOW, limits=Limits(max_ahead_us=60, max_age_us=0))
    assert (invalid.row, invalid.reason) == (0, Reason.TIMESTAMP_IN_FUTURE)


def test_no_rows_break_no_rule() -> None:
    """An empty batch has nothing to refuse."""
    assert validate(trade_rows([]), exchange="ASX", asset_class="equities", now_us=NOW, limits=Limits(60, 0)) == []
