"""Binance spot trades: frames of the combined stream, live or recorded, to rows of trade_v2; pure."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa

from k2stream.errors import DecodeError
from k2stream.feed.recording import SAMPLE, MessageIds, Recording, Session, shipped
from k2stream.rows import body_schema

QUOTES = ("USDT", "USDC", "BUSD", "TUSD", "USDP", "BTC", "ETH", "BNB", "EUR", "GBP", "AUD", "USD", "TRY", "ZAR", "UAH", "NGN")
"""Assets that a symbol may end with, in the order they are tried."""

REQUIRED = ("e", "E", "s", "t", "p", "q", "T", "m")

RECORDED = "binance/btcusdt_trade_frames_2021-01-08.jsonl.gz"

Row = dict[str, Any]
"""Columns of trade_v2; `Any` because they are of as many types."""


def trade(frame: bytes | str, *, message_id: str, now_us: int) -> Row | None:
    """Row of one `@trade` frame, bare or wrapped by the combined stream; None for a frame of another kind.

    One real frame::

        {"stream":"btcusdt@trade","data":{"e":"trade","E":1610064000278,"s":"BTCUSDT","t":553287559,"p":"39432.48000000",
        "q":"0.00026300","T":1610064000278,"m":true,"M":true}}

    `t` is the venue's id, contiguous per symbol: id and sequence both. `m`: the buyer was the maker, so the aggressor sold.
    Raises DecodeError for what is not JSON, or a trade without one of its fields.
    """
    data = _data(frame)
    if data is None or data.get("e") != "trade":
        return None
    lacking = [name for name in REQUIRED if name not in data]
    if lacking:
        raise DecodeError(f"A Binance trade frame has the fields {' '.join(REQUIRED)}, found none of {' '.join(lacking)}. Has the stream's format changed?")
    try:
        return _row(data, message_id, now_us)
    except (ValueError, TypeError, AttributeError, InvalidOperation) as exc:
        raise DecodeError(f"A Binance trade frame with a field of the wrong kind: {exc!r}. Has the stream's format changed?") from exc


def _data(frame: bytes | str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(frame)
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"Expected a JSON frame of Binance, found {frame[:80]!r}: {exc}") from exc
    data = found.get("data", found) if isinstance(found, dict) else None
    return data if isinstance(data, dict) else None


def _row(data: dict[str, Any], message_id: str, now_us: int) -> Row:
    base, quote = assets(data["s"])
    sequence = int(data["t"])
    return {
        "message_id": message_id,
        "trade_id": f"BINANCE-{sequence}",
        "symbol": data["s"],
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "timestamp": int(data["T"]) * 1000,
        "price": _number(data["p"]),
        "quantity": _number(data["q"]),
        "currency": quote,
        "side": "SELL" if data["m"] else "BUY",
        "trade_conditions": [],
        "source_sequence": sequence,
        "ingestion_timestamp": now_us,
        "platform_sequence": None,
        "vendor_data": {
            "is_buyer_maker": _word(data["m"]),
            "event_type": data["e"],
            "event_time": str(data["E"]),
            "trade_time": str(data["T"]),
            "base_asset": base,
            "quote_asset": quote,
            "is_best_match": _word(data.get("M")),
        },
    }


def assets(symbol: str) -> tuple[str, str]:
    """Base and quote asset; of an unknown quote asset the last four characters are taken."""
    quote = next((q for q in QUOTES if symbol.endswith(q) and symbol != q), symbol[-4:])
    return symbol[: -len(quote)] if quote else symbol, quote


def _number(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(f"expected a number, found {text}")
    return number


def _word(value: object) -> str:
    return "" if value is None else str(value).lower()


def trades(*, ids: MessageIds, now_us: int) -> Recording:
    """The shipped BTCUSDT trades, in order; one session."""
    return read_trades(shipped(RECORDED).splitlines(), ids=ids, now_us=now_us)


def read_trades(frames: Iterable[bytes], *, ids: MessageIds, now_us: int) -> Recording:
    """Trades of recorded frames of one symbol; frames of other kinds are left out."""
    lines = list(frames)
    rows = [row for line, message_id in zip(lines, ids.take(len(lines)).to_pylist(), strict=True) if (row := trade(line, message_id=message_id, now_us=now_us))]
    for row in rows:
        row["vendor_data"] = {**row["vendor_data"], **dict([SAMPLE])}
    table = pa.Table.from_pylist(rows, schema=body_schema("trade_v2"))
    # The live feed runs day and night: no session is ever announced, so its one session has no name.
    session = Session(rows[0]["symbol"], "", 0, len(rows), rows[0]["timestamp"]) if rows else None
    return Recording("crypto", "trades", "binance", table, (session,) if session else ())
