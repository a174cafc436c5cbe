"""The parser of Binance trade frames, for recorded and live frames alike."""

from decimal import Decimal
from uuid import UUID

import numpy as np
import orjson
import pytest

from k2stream.errors import DecodeError
from k2stream.feed import binance
from k2stream.feed.frame import Frame
from k2stream.feed.recording import MessageIds

FRAME = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1610064000278,"s":"BTCUSDT","t":553287559,"p":"39432.48000000",'
    b'"q":"0.00026300","T":1610064000278,"m":true,"M":true}}'
)


def read(frame: bytes) -> Frame:
    return binance.read(frame, new_id=lambda: "m", now_us=7)


def test_a_real_frame_becomes_a_trade() -> None:
    """All fields, vendor fields included; the buyer was the maker, so the aggressor sold."""
    (trade,) = read(FRAME).trades
    assert trade == {
        "message_id": "m",
        "trade_id": "BINANCE-553287559",
        "symbol": "BTCUSDT",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "timestamp": 1_610_064_000_278_000,
        "price": Decimal("39432.48"),
        "quantity": Decimal("0.000263"),
        "currency": "USDT",
        "side": "SELL",
        "trade_conditions": [],
        "source_sequence": 553287559,
        "ingestion_timestamp": 7,
        "platform_sequence": None,
        "vendor_data": {
            "is_buyer_maker": "true",
            "event_type": "trade",
            "event_time": "1610064000278",
            "trade_time": "1610064000278",
            "base_asset": "BTC",
            "quote_asset": "USDT",
            "is_best_match": "true",
        },
    }


def test_recorded_frames_are_a_sequence_without_a_hole() -> None:
    """2,001 trades, contiguous ids, each marked as recorded."""
    recording = binance.trades(ids=MessageIds(UUID(int=1)), now_us=7)
    numbers = recording.rows["source_sequence"].to_numpy()
    assert (len(numbers), numbers[0], set(np.diff(numbers))) == (2001, 553287559, {1})
    assert all(dict(v)["is_sample_data"] == "true" for v in recording.rows["vendor_data"].to_pylist())


@pytest.mark.parametrize("frame", [b'{"result":null,"id":1}', b'{"data":{"e":"aggTrade"}}'])
def test_frames_of_other_kinds_are_passed_over(frame: bytes) -> None:
    """A reply to a subscription is no trade, and no error."""
    assert read(frame) == Frame()


@pytest.mark.parametrize("field", binance.TRADE[1:])
def test_a_trade_that_lacks_a_field_is_an_error_that_names_it(field: str) -> None:
    """A changed format must be heard of, not guessed around."""
    data = {k: v for k, v in orjson.loads(FRAME)["data"].items() if k != field}
    with pytest.raises(DecodeError, match=rf"none of {field}\."):
        read(orjson.dumps({"data": data}))


@pytest.mark.parametrize(("field", "value"), [("p", "x"), ("p", "NaN"), ("t", "x"), ("T", None), ("s", 1), ("q", [])])
def test_a_field_of_the_wrong_kind_is_an_error_of_decoding(field: str, value: object) -> None:
    """Nothing but DecodeError leaves the parser."""
    data = {**orjson.loads(FRAME)["data"], field: value}
    with pytest.raises(DecodeError, match="wrong kind"):
        read(orjson.dumps({"data": data}))


@pytest.mark.parametrize(("symbol", "pair"), [("BTCUSDT", ("BTC", "USDT")), ("ETHBTC", ("ETH", "BTC")), ("USDT", ("", "USDT")), ("ABCXYZW", ("ABC", "XYZW"))])
def test_symbols_split_at_the_quote_asset(symbol: str, pair: tuple[str, str]) -> None:
    """The longest known quote asset first; else the last four characters."""
    assert binance.assets(symbol) == pair
