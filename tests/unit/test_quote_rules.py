"""What a quote or an instrument must satisfy: a side may be 0 and a quote crossed, nothing may be negative or nameless."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from k2stream.rows import INSTRUMENTS, QUOTES
from k2stream.validate import INSTRUMENT_RULES, Expected, Limits, broken_rules, validate
from k2stream.verdict import Reason

LIMITS = Limits(max_ahead_us=3_600_000_000, max_age_us=0)
A_QUOTE = {
    "message_id": "m", "quote_id": "ASX-1", "symbol": "BHP", "exchange": "ASX", "asset_class": "equities", "timestamp": 1, "bid_price": Decimal(1),
    "bid_quantity": Decimal(1), "ask_price": Decimal(2), "ask_quantity": Decimal(1), "currency": "AUD", "ingestion_timestamp": 1, "is_sample_data": True,
    "topic": "market.equities.quotes.asx", "partition": 0, "offset": 0,
}  # fmt: skip
AN_INSTRUMENT = {"message_id": "m", "company_id": "1", "symbol": "BHP", "exchange": "ASX", "asset_class": "equities", "company_name": "", "offset": 0}


def reasons_of_quote(**changed: Any) -> list[Reason]:
    row = {**A_QUOTE, **changed}
    rows = pa.table([pa.array([row.get(f.name)], f.type) for f in QUOTES], schema=QUOTES)
    return [i.reason for i in validate(rows, exchange="ASX", asset_class="equities", now_us=10**15, limits=LIMITS)]


@pytest.mark.parametrize(
    "changed",
    [{}, {"bid_price": Decimal(0), "bid_quantity": Decimal(0)}, {"ask_price": Decimal(0)}, {"bid_price": Decimal(3)}, {"exchange": "asx"}],
)
def test_what_venues_say_is_a_row(changed: dict[str, Any]) -> None:
    """Nobody bids before the open, and a book may be crossed for a moment: of 169,629 recorded quotes none is refused."""
    assert reasons_of_quote(**changed) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"quote_id": ""}, Reason.QUOTE_ID_REQUIRED),
        ({"symbol": ""}, Reason.SYMBOL_REQUIRED),
        ({"exchange": "NSX"}, Reason.INVALID_EXCHANGE),
        ({"bid_price": Decimal(-1)}, Reason.PRICE_MUST_NOT_BE_NEGATIVE),
        ({"ask_price": Decimal(-1)}, Reason.PRICE_MUST_NOT_BE_NEGATIVE),
        ({"bid_quantity": Decimal(-1)}, Reason.QUANTITY_MUST_NOT_BE_NEGATIVE),
        ({"timestamp": 10**15}, Reason.TIMESTAMP_IN_FUTURE),
    ],
)
def test_what_cannot_be_a_quote_has_its_reason(changed: dict[str, Any], reason: Reason) -> None:
    """The first rule that it breaks."""
    assert reasons_of_quote(**changed) == [reason]


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({}, []),
        ({"company_id": ""}, [Reason.COMPANY_ID_REQUIRED]),
        ({"symbol": ""}, [Reason.SYMBOL_REQUIRED]),
        ({"asset_class": "crypto"}, [Reason.INVALID_ASSET_CLASS]),
    ],
)
def test_an_instrument_has_a_company_a_symbol_and_its_topics_venue(changed: dict[str, Any], reasons: list[Reason]) -> None:
    """A company without an id would replace all others without one."""
    row = {**AN_INSTRUMENT, **changed}
    rows = pa.table([pa.array([row.get(f.name)], f.type) for f in INSTRUMENTS], schema=INSTRUMENTS)
    assert [i.reason for i in broken_rules(rows, INSTRUMENT_RULES, Expected("ASX", "equities", 10**15, LIMITS))] == reasons
