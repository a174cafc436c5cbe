"""Coinbase Exchange, matches and tickers, to rows; pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from k2stream.feed.crypto import quote_of, trade_of
from k2stream.feed.frame import Frame, NewId, Row, number, parsed, read_fields, text, utc_us, whole, word

EXCHANGE = "COINBASE"
URLS = ("wss://ws-feed.exchange.coinbase.com", "wss://ws-direct.exchange.coinbase.com")

MATCH = ("trade_id", "side", "size", "price", "product_id", "sequence", "time")
TICKER = ("sequence", "product_id", "best_bid", "best_ask", "time")

TAKER = {"buy": "SELL", "sell": "BUY"}
"""A match names the maker's side; the aggressor took the other one."""


def subscriptions(symbols: Sequence[str], *, quotes: bool = False) -> list[bytes]:
    """What is sent after connecting; symbols as the venue writes them, BTC-USD. Heartbeats come every second, trades or none."""
    channels = ["matches", "heartbeat", *(["ticker"] if quotes else [])]
    return [orjson.dumps({"type": "subscribe", "product_ids": list(symbols), "channels": channels})]


def read(frame: bytes | str, *, new_id: NewId, now_us: int) -> Frame:
    """Rows of one frame; raises DecodeError for what is not JSON, or lacks a field.

    One real frame; `last_match`, the first after a subscription, repeats an older trade::

        {"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":
        "3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC",
        "sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}

    `trade_id` is contiguous per product: id and sequence both. `sequence` counts every message of the product's book, so it is a quote's id.
    """
    found = parsed(frame, EXCHANGE)
    match found.get("type"):
        case "match" | "last_match":
            return Frame(trades=(read_fields(found, lambda d: trade_row(d, new_id(), now_us), required=MATCH, what="A Coinbase match"),))
        case "ticker":
            return Frame(quotes=(read_fields(found, lambda d: _quote(d, new_id(), now_us), required=TICKER, what="A Coinbase ticker"),))
        case "error":
            return Frame(refused=": ".join(word(found[k]) for k in ("message", "reason") if k in found) or "no reason given")
    return Frame()


def trade_row(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    orders = {name: word(data.get(name)) for name in ("maker_order_id", "taker_order_id")}
    return match_row(data, text(data["product_id"]), message_id, now_us, {**orders, "book_sequence": str(whole(data["sequence"]))})


def match_row(data: dict[str, Any], symbol: str, message_id: str, now_us: int, more: Mapping[str, str]) -> Row:
    """A match as the stream and the REST endpoint both tell it, and `more` that its vendor_data begins with."""
    base, quote = assets(symbol)
    return trade_of(
        symbol,
        exchange=EXCHANGE,
        currency=quote,
        number=whole(data["trade_id"]),
        at_us=utc_us(data["time"]),
        price=number(data["price"]),
        quantity=number(data["size"]),
        side=TAKER.get(data["side"], "UNKNOWN"),
        vendor_data={**more, "base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
    )


def _quote(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    base, quote = assets(text(data["product_id"]))
    return quote_of(
        data["product_id"],
        exchange=EXCHANGE,
        currency=quote,
        said=whole(data["sequence"]),
        at_us=utc_us(data["time"]),
        bid=(number(data["best_bid"]), _size(data.get("best_bid_size"))),
        ask=(number(data["best_ask"]), _size(data.get("best_ask_size"))),
        vendor_data={"last_trade_id": word(data.get("trade_id")), "base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
    )


def _size(value: object) -> Decimal:
    """Sizes came to tickers in 2022; before, zero says that the venue did not."""
    return Decimal(0) if value is None else number(value)


@lru_cache(maxsize=4096)
def assets(symbol: str) -> tuple[str, str]:
    """Base and quote asset; raises ValueError for a product without a dash."""
    base, dash, quote = symbol.rpartition("-")
    if not (base and dash and quote):
        raise ValueError(f"expected a product like BTC-USD, found {symbol}")
    return base, quote
