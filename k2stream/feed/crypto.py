"""Trades and quotes of a pair of assets, as trade_v2 and quote_v2 have them: what rows of all crypto venues have in common; pure."""

from collections.abc import Mapping
from decimal import Decimal

from k2stream.feed.frame import Row

ASSET_CLASS = "crypto"


def trade_of(
    symbol: str,
    *,
    exchange: str,
    currency: str,
    number: int,
    at_us: int,
    price: Decimal,
    quantity: Decimal,
    side: str,
    vendor_data: Mapping[str, str],
    message_id: str,
    now_us: int,
) -> Row:
    """A trade whose `number`, contiguous per symbol, is id and sequence both; times are microseconds since the epoch."""
    return {
        "message_id": message_id,
        "trade_id": f"{exchange}-{number}",
        "symbol": symbol,
        "exchange": exchange,
        "asset_class": ASSET_CLASS,
        "timestamp": at_us,
        "price": price,
        "quantity": quantity,
        "currency": currency,
        "side": side,
        "trade_conditions": [],
        "source_sequence": number,
        "ingestion_timestamp": now_us,
        "platform_sequence": None,
        "vendor_data": vendor_data,
    }


def quote_of(
    symbol: str,
    *,
    exchange: str,
    currency: str,
    said: object,
    at_us: int,
    bid: tuple[Decimal, Decimal],
    ask: tuple[Decimal, Decimal],
    vendor_data: Mapping[str, str],
    message_id: str,
    now_us: int,
    asset_class: str = ASSET_CLASS,
) -> Row:
    """A best bid and ask, each a price and a quantity; `said` is what tells it from the symbol's others, for venues do not number quotes without holes."""
    return {
        "message_id": message_id,
        "quote_id": f"{exchange}-{said}",
        "symbol": symbol,
        "exchange": exchange,
        "asset_class": asset_class,
        "timestamp": at_us,
        "bid_price": bid[0],
        "bid_quantity": bid[1],
        "ask_price": ask[0],
        "ask_quantity": ask[1],
        "currency": currency,
        "source_sequence": None,
        "ingestion_timestamp": now_us,
        "platform_sequence": None,
        "vendor_data": vendor_data,
    }
