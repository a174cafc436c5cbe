"""Records that must become dead letters: each a real trade with one thing wrong, and the reason it must be given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from k2stream.feed.avro import FRAME, encode_one
from k2stream.verdict import Reason

UNKNOWN_SCHEMA_ID = 2_000_000_000
"""No registry counts that far."""

ID_AT = FRAME.size + 1
"""Where the text of the first field, message_id, begins: behind the frame and one byte of length."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spoil:
    """One way to spoil a trade: another value in it, or other bytes."""

    reason: Reason
    row: Callable[[Row], Row] = lambda row: row
    value: Callable[[bytes], bytes] = lambda value: value

    def bytes_of(self, row: Row, *, schema_id: int) -> bytes:
        """Value of the record that stands in the trade's place."""
        return self.value(encode_one(dict(self.row(row)), schema="trade_v2", schema_id=schema_id))


SPOILS: Mapping[str, Spoil] = {
    "wrong_magic_byte": Spoil(Reason.BAD_MAGIC, value=lambda v: b"\x01" + v[1:]),
    "unknown_schema_id": Spoil(Reason.UNKNOWN_SCHEMA, value=lambda v: FRAME.pack(0, UNKNOWN_SCHEMA_ID) + v[FRAME.size :]),
    "truncated_body": Spoil(Reason.TRUNCATED, value=lambda v: v[:-9]),
    "over_long_body": Spoil(Reason.TRAILING_BYTES, value=lambda v: v + b"more"),
    "invalid_utf8": Spoil(Reason.INVALID_UTF8, value=lambda v: v[:ID_AT] + b"\xff\xfe" + v[ID_AT + 2 :]),
    "zero_price": Spoil(Reason.PRICE_MUST_BE_POSITIVE, row=lambda r: {**r, "price": Decimal(0)}),
    "negative_price": Spoil(Reason.PRICE_MUST_BE_POSITIVE, row=lambda r: {**r, "price": -r["price"]}),
    "empty_symbol": Spoil(Reason.SYMBOL_REQUIRED, row=lambda r: {**r, "symbol": ""}),
}
