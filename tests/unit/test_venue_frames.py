"""Real frames of every venue become exactly their rows; other frames are no error, changed ones say what changed."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from types import ModuleType

import orjson
import pytest

from k2stream.errors import DecodeError
from k2stream.feed import binance, coinbase, kraken
from k2stream.feed.frame import Frame, number, utc_us
from k2stream.feed.live import records_of
from k2stream.feed.recording import shipped
from k2stream.rows import body_schema

Read = Callable[[bytes], Frame]

NOW_US = 1_700_000_000_000_000


def reader(venue: ModuleType) -> Read:
    ids = map(str, itertools.count())
    return lambda frame: venue.read(frame, new_id=lambda: next(ids), now_us=NOW_US)


def frames_of(name: str) -> list[bytes]:
    return shipped(f"frames/{name}").splitlines()


def test_recorded_coinbase_frames_give_every_match_and_ticker() -> None:
    """97 matches and 10 repeats of the last one; ids are contiguous per product, so a repeat is known by its id."""
    read = reader(coinbase)
    found = [read(f) for f in frames_of("coinbase_exchange_2021-04-17.jsonl.gz")]
    trades, quotes = [t for f in found for t in f.trades], [q for f in found for q in f.quotes]
    assert (len(trades), len(quotes), sum(f == Frame() for f in found)) == (107, 107, 3)
    numbers: dict[str, list[int]] = {}
    for trade in trades:
        numbers.setdefault(trade["symbol"], []).append(trade["source_sequence"])
    assert all(n in (0, 1) for run in numbers.values() for n in (b - a for a, b in itertools.pairwise(sorted(run))))
    assert len({t["message_id"] for t in trades}) == 107
    assert Counter(q["exchange"] for q in quotes) == {"COINBASE": 107}


def test_a_coinbase_match_names_the_takers_side() -> None:
    """The venue names the maker's; a ticker of the same trade says so."""
    frames = [orjson.loads(f) for f in frames_of("coinbase_exchange_2021-04-17.jsonl.gz")]
    takers = {(f["product_id"], f["trade_id"]): f["side"].upper() for f in frames if f["type"] == "ticker"}
    read = reader(coinbase)
    matched = [read(orjson.dumps(f)).trades[0] for f in frames if f["type"] in ("match", "last_match")]
    told = [(t["side"], takers[key]) for t in matched if (key := (t["symbol"], t["source_sequence"])) in takers]
    assert len(told) > 50
    assert all(side == taker for side, taker in told)


def test_a_kraken_frame_of_several_trades_gives_them_all() -> None:
    """Numbers of the JSON are prices to the last place, never floats."""
    frame = shipped("frames/kraken_v2_trade.json")
    first, second = reader(kraken)(frame).trades
    assert (first["trade_id"], first["price"], first["quantity"]) == ("KRAKEN-10218208", Decimal("105944.20"), Decimal("0.00027625"))
    assert (first["side"], second["side"], second["source_sequence"], second["currency"]) == ("BUY", "SELL", 10218209, "USD")
    assert second["timestamp"] - first["timestamp"] == 683_161


def test_a_kraken_ticker_is_known_by_what_it_says() -> None:
    """It has no id: the same words twice are one quote."""
    frame = shipped("frames/kraken_v2_ticker.json")
    (quote,), (again,) = reader(kraken)(frame).quotes, reader(kraken)(frame).quotes
    assert quote["quote_id"] == again["quote_id"] == "KRAKEN-1671960659123456-105944.20-2.5-105944.30-3.2"
    assert (quote["bid_price"], quote["ask_quantity"], quote["timestamp"]) == (Decimal("105944.20"), Decimal("3.2"), 1_671_960_659_123_456)


def test_recorded_binance_best_quotes_of_futures_carry_their_own_time() -> None:
    """613 best quotes; aggregated trades beside them are no trades."""
    read = reader(binance)
    found = [read(f) for f in frames_of("binance_futures_bookticker_aggtrade_2021-07-22.jsonl.gz")]
    quotes = [q for f in found for q in f.quotes]
    assert (len(quotes), sum(f == Frame() for f in found), sum(len(f.trades) for f in found)) == (613, 91, 0)
    assert {q["asset_class"] for q in quotes} == {"futures"}
    assert quotes[0]["timestamp"] == 1_626_992_741_012_000


def test_a_best_quote_of_the_spot_market_is_of_when_it_was_read() -> None:
    """Its frame has an update id and no time."""
    frame = b'{"stream":"bnbusdt@bookTicker","data":{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21","a":"25.36520000","A":"40.66"}}'
    (quote,) = reader(binance)(frame).quotes
    assert (quote["quote_id"], quote["timestamp"], quote["asset_class"], quote["currency"]) == ("BINANCE-400900217", NOW_US, "crypto", "USDT")


@pytest.mark.parametrize(
    ("venue", "name", "kind"),
    [
        (binance, "binance/btcusdt_trade_frames_2021-01-08.jsonl.gz", "trade_v2"),
        (coinbase, "frames/coinbase_exchange_2021-04-17.jsonl.gz", "trade_v2"),
        (coinbase, "frames/coinbase_exchange_2021-04-17.jsonl.gz", "quote_v2"),
        (binance, "frames/binance_futures_bookticker_aggtrade_2021-07-22.jsonl.gz", "quote_v2"),
    ],
)
def test_rows_have_the_contracts_columns(venue: ModuleType, name: str, kind: str) -> None:
    """No field more, none less, in the contract's order."""
    read = reader(venue)
    rows = [r for f in shipped(name).splitlines()[:50] for r in (read(f).trades if kind == "trade_v2" else read(f).quotes)]
    assert rows
    assert all(list(row) == body_schema(kind).names for row in rows)


@pytest.mark.parametrize(
    ("venue", "frame", "said"),
    [
        (kraken, b'{"error":"Currency pair not supported XYZ/USD","method":"subscribe","success":false}', "Currency pair not supported XYZ/USD"),
        (coinbase, b'{"type":"error","message":"Failed to subscribe","reason":"XYZ-USD is not a valid product"}', "XYZ-USD is not a valid product"),
        (binance, b'{"error":{"code":2,"msg":"Invalid request: unknown stream"},"id":1}', "unknown stream"),
    ],
)
def test_a_refused_subscription_is_told_in_the_venues_words(venue: ModuleType, frame: bytes, said: str) -> None:
    """Else a feed would wait for trades that never come."""
    assert said in reader(venue)(frame).refused


@pytest.mark.parametrize("venue", [binance, coinbase, kraken])
@pytest.mark.parametrize(
    "frame", [b"", b"nothing", b"[]", b"1", b'"text"', b"\xff", b"[" * 100_000, b'{"channel":"trade","data":[{}]}', b'{"type":"match"}', b'{"e":"trade"}']
)
def test_garbage_is_an_error_of_decoding_or_nothing(venue: ModuleType, frame: bytes) -> None:
    """Nothing but DecodeError leaves a parser, and no row comes of it."""
    found = Frame()
    with suppress(DecodeError):
        found = reader(venue)(frame)
    assert found == Frame()


TRADES: dict[ModuleType, dict[str, object]] = {
    binance: {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": 1_610_064_000_000, "m": True},
    coinbase: {"type": "match", "trade_id": 1, "side": "buy", "size": "1", "price": "1", "product_id": "A-B", "sequence": 1, "time": "2021-04-17T16:43:37Z"},
    kraken: {"symbol": "A/B", "side": "buy", "price": 1, "qty": 1, "trade_id": 1, "timestamp": "2023-10-06T17:35:55Z"},
}


def read_with(venue: ModuleType, **changes: object) -> Frame:
    """A good trade of the venue with other fields; plain json, for it writes what orjson would refuse."""
    trade = {**TRADES[venue], **changes}
    return reader(venue)(json.dumps({"channel": "trade", "data": [trade]} if venue is kraken else trade).encode())


@pytest.mark.parametrize(
    ("venue", "changes"),
    [
        (binance, {"t": 10**22}),
        (binance, {"t": -(10**22)}),
        (binance, {"T": 10**17}),
        (binance, {"s": "\ud800USDT"}),
        (binance, {"s": 5}),
        (binance, {"s": "X" * 100_000}),
        (binance, {"E": "\udfff"}),
        (binance, {"E": "1" * 100_000}),
        (coinbase, {"trade_id": str(2**63)}),
        (coinbase, {"product_id": "\ud800-B"}),
        (coinbase, {"maker_order_id": "\ud800"}),
        (coinbase, {"maker_order_id": "x" * 100_000}),
        (kraken, {"trade_id": 2**64}),
        (kraken, {"symbol": "A/\ud800"}),
        (kraken, {"ord_type": ["x"] * 10_000}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_that_no_row_can_hold_is_an_error_of_decoding(venue: ModuleType, changes: dict[str, object]) -> None:
    """Found when rows are encoded together, it would end the feed and take its neighbours along."""
    with pytest.raises(DecodeError, match="stream's format changed"):
        read_with(venue, **changes)


@pytest.mark.parametrize("venue", [binance, coinbase, kraken])
@pytest.mark.parametrize("value", ["1." + "0" * 60, "1e0", "10e-1", "0.0000001e7", "0e999"])
def test_a_number_however_it_is_written_makes_a_record(venue: ModuleType, value: str) -> None:
    """Zeros beyond eight places say nothing, and Arrow takes only so many."""
    changes = {binance: {"p": value}, coinbase: {"price": value}, kraken: {"price": value}}[venue]
    (row,) = read_with(venue, **changes).trades
    assert row["price"] in (0, 1)
    assert len(records_of([row], "trade_v2", 1)) == 1


def test_symbols_of_other_alphabets_are_read() -> None:
    """Venues list them, escaped or not."""
    (row,) = read_with(binance, s="币安人生USDT").trades
    assert row["symbol"] == "币安人生USDT"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "0.000000001", "10000000000", "x", True, None, 1.5, "1e400"])
def test_what_a_row_cannot_hold_is_no_number(value: object) -> None:
    """Rounding a price would be a lie that nobody sees."""
    with pytest.raises(ValueError, match="expected a number"):
        number(value)


def test_a_time_without_its_zone_is_refused() -> None:
    """Taken for local time it would be hours off."""
    with pytest.raises(ValueError, match="with its zone"):
        utc_us("2023-10-06T17:35:55.440295")
