"""Kraken's WebSocket v2, trades and tickers, to rows; pure. Version 1 has no trade ids, so it is not read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from k2stream.feed.crypto import quote_of, trade_of
from k2stream.feed.frame import Frame, NewId, Row, number, parsed, read_fields, text, utc_us, whole, word

EXCHANGE = "KRAKEN"
URLS = ("wss://ws.kraken.com/v2",)

TRADE = ("symbol", "side", "price", "qty", "trade_id", "timestamp")
TICKER = ("symbol", "bid", "bid_qty", "ask", "ask_qty")


def subscriptions(symbols: Sequence[str], *, quotes: bool = False) -> list[bytes]:
    """What is sent after connecting; symbols as the venue writes them, BTC/USD."""
    channels = ["trade", *(["ticker"] if quotes else [])]
    return [orjson.dumps({"method": "subscribe", "params": {"channel": c, "symbol": list(symbols), "snapshot": True}}) for c in channels]


def read(frame: bytes | str, *, new_id: NewId, now_us: int) -> Frame:
    """Rows of one frame; raises DecodeError for what is not JSON, or lacks a field.

    One real frame; a subscription's first one is a snapshot of the newest trades, which repeats what came before a reconnect::

        {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,
        "ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"}]}

    `trade_id` is contiguous per symbol: id and sequence both. `side` is the taker's. A ticker has neither id nor sequence: what it says is its id.
    """
    found = parsed(frame, EXCHANGE)
    if found.get("success") is False:
        return Frame(refused=word(found.get("error")) or "no reason given")
    data = found.get("data")
    if not isinstance(data, list):
        return Frame()
    if found.get("channel") == "trade":
        return Frame(trades=tuple(read_fields(d, lambda d: trade_row(d, new_id(), now_us), required=TRADE, what="A Kraken trade") for d in data))
    if found.get("channel") == "ticker":
        return Frame(quotes=tuple(read_fields(d, lambda d: _quote(d, new_id(), now_us), required=TICKER, what="A Kraken ticker") for d in data))
    return Frame()


def trade_row(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    base, quote = assets(text(data["symbol"]))
    return trade_of(
        data["symbol"],
        exchange=EXCHANGE,
        currency=quote,
        number=whole(data["trade_id"]),
        at_us=utc_us(data["timestamp"]),
        price=number(data["price"]),
        quantity=number(data["qty"]),
        side={"buy": "BUY", "sell": "SELL"}.get(data["side"], "UNKNOWN"),
        vendor_data={"order_type": word(data.get("ord_type")), "base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
    )


def _quote(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    base, quote = assets(text(data["symbol"]))
    at_us = utc_us(data["timestamp"]) if data.get("timestamp") else now_us
    bid, ask = (number(data["bid"]), number(data["bid_qty"])), (number(data["ask"]), number(data["ask_qty"]))
    return quote_of(
        data["symbol"],
        exchange=EXCHANGE,
        currency=quote,
        said="-".join(map(str, (at_us, *bid, *ask))),
        at_us=at_us,
        bid=bid,
        ask=ask,
        vendor_data={"base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
    )


@lru_cache(maxsize=4096)
def assets(symbol: str) -> tuple[str, str]:
    """Base and quote asset; raises ValueError for a symbol without a slash."""
    base, slash, quote = symbol.partition("/")
    if not (base and slash and quote):
        raise ValueError(f"expected a symbol like BTC/USD, found {symbol}")
    return base, quote
