"""Coinbase Exchange's trades by number, newest first, page by page back to the first wanted one; pure."""


from k2stream.feed.coinbase import match_row
from k2stream.feed.frame import NewId, read_fields
from k2stream.feed.rest.endpoint import PAGE_TRADES, Endpoint, Page, Question, Wanted, numbers_of, parsed_json, word_in

URL = "https://api.exchange.coinbase.com"

TRADE = ("time", "trade_id", "price", "size", "side")


def begin(wanted: Wanted) -> Question:
    """The last wanted trade with the one behind it, and those before: the endpoint may lag behind the stream, and that one tells that it does not."""
    return _before_number(wanted.symbol, wanted.last + 2)


def read(body: bytes, question: Question, wanted: Wanted, *, new_id: NewId, now_us: int) -> Page:
    """A page, its trades in any order. One real trade of it; `side` is the maker's, as in the stream::

        {"trade_id":74,"side":"sell","size":"0.01000000","price":"10.00000000","time":"2014-11-07T22:19:28.578544Z"}

    Raises DecodeError.
    """
    found = parsed_json(body, "Coinbase", list)
    trades = tuple(read_fields(t, lambda d: match_row(d, wanted.symbol, new_id(), now_us, {}), required=TRADE, what="A trade of Coinbase") for t in found)
    if not trades:
        return Page((), None, None)
    lowest, highest = numbers_of(trades)
    if lowest >= question.cursor:
        return Page(trades, None, None)
    more = _before_number(wanted.symbol, lowest) if lowest > wanted.first else None
    is_behind = question.cursor > wanted.last + 1 and highest <= wanted.last  # what is newer may only not be there yet
    return Page(trades, (lowest, highest if is_behind else question.cursor - 1), more)


def _before_number(symbol: str, cursor: int) -> Question:
    return Question(f"/products/{symbol}/trades", (("after", str(cursor)), ("limit", str(PAGE_TRADES))), cursor)


ENDPOINT = Endpoint(
    venue="coinbase",
    url=URL,
    begin=begin,
    read=read,
    refusal=lambda body: word_in(body, "message"),
    is_busy=lambda _: False,
    per_second=10,
    at_once=15,
)
"""Ten questions a second, fifteen at once: what the venue allows an address."""
