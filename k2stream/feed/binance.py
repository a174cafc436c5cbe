"""Binance spot trades and best quotes: frames of the combined stream, live or recorded, to rows; pure."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from k2stream.feed.crypto import ASSET_CLASS, quote_of, trade_of
from k2stream.feed.frame import Frame, NewId, Row, millis_us, number, parsed, read_fields, text, whole, word
from k2stream.feed.recording import SAMPLE, MessageIds, Recording, Session, shipped
from k2stream.rows import body_schema

EXCHANGE = "BINANCE"
URLS = ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")

QUOTES = ("USDT", "USDC", "BUSD", "TUSD", "USDP", "BTC", "ETH", "BNB", "EUR", "GBP", "AUD", "USD", "TRY", "ZAR", "UAH", "NGN")
"""Assets that a symbol may end with, in the order they are tried."""

TRADE = ("e", "E", "s", "t", "p", "q", "T", "m")
BOOK_TICKER = ("u", "s", "b", "B", "a", "A")

RECORDED = "binance/btcusdt_trade_frames_2021-01-08.jsonl.gz"


def stream_path(symbols: Sequence[str], *, quotes: bool = False) -> str:
    """Path of the combined stream; symbols as the venue writes them, BTCUSDT. The path subscribes: nothing is sent after connecting."""
    kinds = ("trade", *(("bookTicker",) if quotes else ()))
    return "/stream?streams=" + "/".join(f"{s.lower()}@{kind}" for s in symbols for kind in kinds)


def read(frame: bytes | str, *, new_id: NewId, now_us: int) -> Frame:
    """Rows of one frame, bare or wrapped by the combined stream; raises DecodeError for what is not JSON, or lacks a field.

    One real frame::

        {"stream":"btcusdt@trade","data":{"e":"trade","E":1610064000278,"s":"BTCUSDT","t":553287559,"p":"39432.48000000",
        "q":"0.00026300","T":1610064000278,"m":true,"M":true}}

    `t` is the venue's id, contiguous per symbol: id and sequence both. `m`: the buyer was the maker, so the aggressor sold.
    A best quote of the spot market has an update id and no time: it is of when it was read.
    """
    found = parsed(frame, EXCHANGE)
    if isinstance(found.get("error"), dict):
        return Frame(refused=word(found["error"].get("msg")) or "no reason given")
    data = found.get("data", found)
    kind = data.get("e") if isinstance(data, dict) else None
    if kind == "trade":
        return Frame(trades=(read_fields(data, lambda d: trade_row(d, new_id(), now_us), required=TRADE, what="A Binance trade frame"),))
    if kind == "bookTicker" or str(found.get("stream")).endswith("@bookTicker"):
        return Frame(quotes=(read_fields(data, lambda d: _quote(d, new_id(), now_us), required=BOOK_TICKER, what="A Binance best quote"),))
    return Frame()


def trade_row(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    base, quote = assets(text(data["s"]))
    return trade_of(
        data["s"],
        exchange=EXCHANGE,
        currency=quote,
        number=whole(data["t"]),
        at_us=millis_us(data["T"]),
        price=number(data["p"]),
        quantity=number(data["q"]),
        side="SELL" if data["m"] else "BUY",
        vendor_data={
            "is_buyer_maker": word(data["m"]),
            "event_type": data["e"],
            "event_time": word(data["E"]),
            "trade_time": word(data["T"]),
            "base_asset": base,
            "quote_asset": quote,
            "is_best_match": word(data.get("M")),
        },
        message_id=message_id,
        now_us=now_us,
    )


def _quote(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    """A frame with times of its own is of the futures market."""
    base, quote = assets(text(data["s"]))
    return quote_of(
        data["s"],
        exchange=EXCHANGE,
        currency=quote,
        said=whole(data["u"]),
        at_us=millis_us(data["T"]) if "T" in data else now_us,
        bid=(number(data["b"]), number(data["B"])),
        ask=(number(data["a"]), number(data["A"])),
        vendor_data={"base_asset": base, "quote_asset": quote},
        message_id=message_id,
        now_us=now_us,
        asset_class="futures" if "T" in data else ASSET_CLASS,
    )


@lru_cache(maxsize=4096)
def assets(symbol: str) -> tuple[str, str]:
    """Base and quote asset; of an unknown quote asset the last four characters are taken."""
    quote = next((q for q in QUOTES if symbol.endswith(q) and symbol != q), symbol[-4:])
    return symbol[: -len(quote)] if quote else symbol, quote


def trades(*, ids: MessageIds, now_us: int) -> Recording:
    """The shipped BTCUSDT trades, in order; one session."""
    return read_trades(shipped(RECORDED).splitlines(), ids=ids, now_us=now_us)


def read_trades(frames: Iterable[bytes], *, ids: MessageIds, now_us: int) -> Recording:
    """Trades of recorded frames of one symbol; frames of other kinds are left out."""
    rows = [row for line in frames for row in read(line, new_id=ids.one, now_us=now_us).trades]
    for row in rows:
        row["vendor_data"] = {**row["vendor_data"], **dict([SAMPLE])}
    table = pa.Table.from_pylist(rows, schema=body_schema("trade_v2"))
    # The live feed runs day and night: no session is ever announced, so its one session has no name.
    session = Session(rows[0]["symbol"], "", 0, len(rows), rows[0]["timestamp"]) if rows else None
    return Recording("crypto", "trades", "binance", table, (session,) if session else ())
