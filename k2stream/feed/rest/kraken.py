"""Kraken's trades from a time on, page by page; numbers come with each trade; pure."""

from decimal import Decimal
from typing import Any

from k2stream.errors import DecodeError
from k2stream.feed.crypto import trade_of
from k2stream.feed.frame import NewId, Row, number, read_fields, whole
from k2stream.feed.kraken import EXCHANGE, assets
from k2stream.feed.rest.endpoint import PAGE_TRADES, Endpoint, Page, Question, Wanted, numbers_of, parsed_json, word_in

URL = "https://api.kraken.com"
PATH = "/0/public/Trades"

OLDER_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
"""What this endpoint calls assets that the WebSocket's version 2 calls otherwise."""

FIELDS = ("price", "volume", "time", "side", "order_type", "misc", "trade_id")
SIDES, ORDER_TYPES = {"b": "BUY", "s": "SELL"}, {"m": "market", "l": "limit"}

EARLIER_US = 1_000
"""Asked from so long before the row in front of the gap, so that this row, too, is in the answer."""


def begin(wanted: Wanted) -> Question:
    """The trades from the row before the gap on."""
    return _since(wanted.symbol, (wanted.previous_us - EARLIER_US) * 1000, None)


def read(body: bytes, question: Question, wanted: Wanted, *, new_id: NewId, now_us: int) -> Page:
    """A page, its trades in any order. One real answer with one trade: price, volume, seconds, buy, limit, -, number::

        {"error":[],"result":{"XXBTZUSD":[["30243.30000","0.00376960",1688669598.2804112,"b","l","",61044953]],"last":"1688671969993150842"}}

    Raises DecodeError.
    """
    result = parsed_json(body, "Kraken", dict).get("result")
    lists = [found for name, found in result.items() if name != "last"] if isinstance(result, dict) else []
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise DecodeError(f"Expected trades of one pair of Kraken, found {body[:80]!r}. Has the endpoint changed?")
    trades = tuple(read_fields(_named(t), lambda d: _row(d, wanted.symbol, new_id(), now_us), required=FIELDS, what="A trade of Kraken") for t in lists[0])
    if not trades:
        return Page((), None, None)
    lowest, highest = numbers_of(trades)
    covered_from = lowest if question.covered_from is None else min(lowest, question.covered_from)
    newest_us = max(trade["timestamp"] for trade in trades)
    return Page(trades, (covered_from, highest), _more(result.get("last"), highest, newest_us, question, wanted))


def _more(last: Any, highest: int, newest_us: int, question: Question, wanted: Wanted) -> Question | None:
    """None once all that is wanted was passed, or the venue does not move on.

    A page may end between trades of one time, and the next begins behind its time: so it is asked for from just before it.
    """
    try:
        last_ns = whole(last)
    except ValueError as exc:
        raise DecodeError(f"Expected Kraken to say where its next page begins, found {last!r}.") from exc
    since_ns = next((s for s in (min(last_ns, (newest_us - 1) * 1000), last_ns) if s > question.cursor), None)
    return None if highest >= wanted.last or since_ns is None else _since(wanted.symbol, since_ns, highest + 1)


def _since(symbol: str, since_ns: int, covered_from: int | None) -> Question:
    return Question(PATH, (("pair", pair_of(symbol)), ("since", str(since_ns)), ("count", str(PAGE_TRADES))), since_ns, covered_from)


def pair_of(symbol: str) -> str:
    """BTC/USD -> XBTUSD."""
    return "".join(OLDER_NAMES.get(asset, asset) for asset in assets(symbol))


def _named(trade: Any) -> dict[str, Any]:
    return dict(zip(FIELDS, trade, strict=False)) if isinstance(trade, list) else {}


def _row(data: dict[str, Any], symbol: str, message_id: str, now_us: int) -> Row:
    """As the stream's frame of the same trade."""
    base, quote = assets(symbol)
    return trade_of(
        symbol,
        exchange=EXCHANGE,
        currency=quote,
        number=whole(data["trade_id"]),
        at_us=int(Decimal(data["time"]) * 1_000_000),
        price=number(data["price"]),
        quantity=number(data["volume"]),
        side=SIDES.get(data["side"], "UNKNOWN"),
        vendor_data={"order_type": ORDER_TYPES.get(data["order_type"], ""), "base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
    )


def refusal(body: bytes) -> str:
    """Kraken refuses with status 200 and a list of words."""
    return word_in(body, "error").strip("[]'")


ENDPOINT = Endpoint(
    venue="kraken",
    url=URL,
    begin=begin,
    read=read,
    refusal=refusal,
    is_busy=lambda body: b"Too many requests" in body or b"EAPI:Rate limit" in body or b"EService:" in body,
    per_second=1,
    at_once=1,
)
"""One question a second: what the venue allows an address for one pair."""
