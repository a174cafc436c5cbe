"""What one WebSocket frame of a venue says, and how its fields are read; pure, for live frames and recorded ones alike."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from k2stream.errors import DecodeError

Row = dict[str, Any]
"""Columns of trade_v2 or quote_v2; `Any` because they are of as many types."""

NewId = Callable[[], str]
"""Gives a message id, another one each time."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PLACES = Decimal("0.00000001")
LIMIT = Decimal(10**10)
"""What decimal(18, 8) can hold: so fine, and below so much."""
MOST = 2**63 - 1
"""What a long can hold."""
MOST_CHARACTERS = 1_000
"""Of a symbol or a value of vendor_data; a row without a bound would be more than a topic takes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame holds; nothing of it for heartbeats and replies to subscriptions."""

    trades: tuple[Row, ...] = ()
    quotes: tuple[Row, ...] = ()
    refused: str = ""
    """The venue's own words where it refuses a subscription."""


def parsed(frame: bytes | str, venue: str) -> dict[str, Any]:
    """A frame's JSON object, its numbers as Decimals: a price must not become a float on its way. Raises DecodeError."""
    try:
        text = frame if isinstance(frame, str) else frame.decode()
        if "\\u" in text:
            orjson.loads(text)  # refuses half a surrogate pair, which our decoder lets pass and no row could hold
        found = DECODER.decode(text)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"Expected a JSON frame of {venue}, found {frame[:80]!r}: {exc}. Has the stream's format changed?") from exc
    if not isinstance(found, dict):
        raise DecodeError(f"Expected a JSON object of {venue}, found {frame[:80]!r}. Has the stream's format changed?")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_number)
"""Made once: `json.loads` makes one a call, a third of its time."""


def read_fields(data: Any, read: Callable[[dict[str, Any]], Row], *, required: Sequence[str], what: str) -> Row:
    """`read(data)`; raises DecodeError naming what `data` lacks of `required`, or the field of a wrong kind."""
    lacking = [name for name in required if not isinstance(data, dict) or name not in data]
    if lacking:
        raise DecodeError(f"{what} has the fields {' '.join(required)}, found none of {' '.join(lacking)}. Has the stream's format changed?")
    try:
        return read(data)
    except (ValueError, TypeError, AttributeError, ArithmeticError) as exc:
        raise DecodeError(f"{what} with a field of the wrong kind: {exc!r}. Has the stream's format changed?") from exc


def number(value: object) -> Decimal:
    """A price or a quantity, to eight places, zeros beyond them cut off; raises ValueError for what is none, or is finer than a row can hold."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError(f"expected a number, found {value!r}")
    try:
        found = Decimal(value)
        fits = found.is_finite() and abs(found) < LIMIT and found == (cut := found.quantize(PLACES))
    except InvalidOperation as exc:
        raise ValueError(f"expected a number, found {value!r}") from exc
    if not fits:
        raise ValueError(f"expected a number of ten digits and eight places, found {value!r}")
    return found if PLACES.adjusted() <= int(found.as_tuple().exponent) <= 0 else cut


def whole(value: object) -> int:
    """An id or a time; raises ValueError for what is not a whole number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"expected a whole number, found {value!r}")
    found = int(value)
    if not -MOST <= found <= MOST:
        raise ValueError(f"expected a whole number of 64 bits, found {value!r}")
    return found


def millis_us(value: object) -> int:
    """Microseconds of a time in milliseconds; raises ValueError for what is not a whole number, or too late for a row to hold."""
    return whole(whole(value) * 1000)


def text(value: object) -> str:
    """A symbol; raises ValueError for what is none, or longer than any."""
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        raise ValueError(f"expected a symbol, found {str(value)[:80]!r}")
    return value


def word(value: object) -> str:
    """A value of vendor_data: text as it is, true and false in lower case, nothing as an empty string; raises ValueError for one of no sense."""
    found = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if len(found) > MOST_CHARACTERS:
        raise ValueError(f"expected at most {MOST_CHARACTERS:,} characters, found {found[:80]!r}...")
    return found


def utc_us(text: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time; finer parts are cut off. Raises ValueError without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"expected a time with its zone, found {text}")
    return (moment - EPOCH) // timedelta(microseconds=1)
