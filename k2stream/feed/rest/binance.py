"""Binance's trades by number: `historicalTrades` where there is a key, the newest thousand of `trades` where there is none; pure.

`aggTrades` is not asked: it joins trades of one order at one price into one line, whose ids are of their own and which cannot be taken
apart again into the trades that are missing.
"""

from typing import Any

from k2stream.feed.binance import trade_row
from k2stream.feed.frame import NewId, Row, read_fields
from k2stream.feed.rest.endpoint import PAGE_TRADES, Endpoint, Page, Question, Wanted, numbers_of, parsed_json, word_in

URL = "https://api.binance.com"
NEWEST, BY_NUMBER = "/api/v3/trades", "/api/v3/historicalTrades"

WEIGHT, WEIGHT_PER_MINUTE = 25, 6000
"""Of either question, and what an address may spend."""

TRADE = ("id", "price", "qty", "time", "isBuyerMaker")


def begin_by_number(wanted: Wanted) -> Question:
    """The trades from the first wanted one on."""
    return _from_number(wanted.symbol, wanted.first)


def begin_newest(wanted: Wanted) -> Question:
    """The newest trades: what is wanted may be among them."""
    return Question(NEWEST, (("symbol", wanted.symbol), ("limit", str(PAGE_TRADES))), 0)


def read(body: bytes, question: Question, wanted: Wanted, *, new_id: NewId, now_us: int) -> Page:
    """A page, its trades in any order. One real trade of it::

        {"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","time":1499865549590,"isBuyerMaker":true,"isBestMatch":true}

    Raises DecodeError.
    """
    found = parsed_json(body, "Binance", list)
    trades = tuple(read_fields(t, lambda d: _row(d, wanted.symbol, new_id(), now_us), required=TRADE, what="A trade of Binance") for t in found)
    if not trades:
        return Page((), None, None)
    lowest, highest = numbers_of(trades)
    if question.path == NEWEST:
        return Page(trades, (lowest, highest), None)
    if highest < question.cursor:
        return Page(trades, None, None)
    more = _from_number(wanted.symbol, highest + 1) if highest < wanted.last else None
    return Page(trades, (question.cursor, highest), more)


def _from_number(symbol: str, number: int) -> Question:
    return Question(BY_NUMBER, (("symbol", symbol), ("fromId", str(number)), ("limit", str(PAGE_TRADES))), number)


def _row(data: dict[str, Any], symbol: str, message_id: str, now_us: int) -> Row:
    """As the stream's frame of the same trade, whose event time is not told here."""
    frame = {"e": "trade", "E": data["time"], "s": symbol, "t": data["id"], "p": data["price"], "q": data["qty"], "T": data["time"]}
    return trade_row({**frame, "m": data["isBuyerMaker"], "M": data.get("isBestMatch")}, message_id, now_us)


def _endpoint(*, has_key: bool) -> Endpoint:
    return Endpoint(
        venue="binance",
        url=URL,
        begin=begin_by_number if has_key else begin_newest,
        read=read,
        refusal=lambda body: word_in(body, "msg"),
        is_busy=lambda _: False,
        per_second=WEIGHT_PER_MINUTE / WEIGHT / 60,
        at_once=20,
        key_header="X-MBX-APIKEY" if has_key else "",
    )


KEYED, KEYLESS = _endpoint(has_key=True), _endpoint(has_key=False)
