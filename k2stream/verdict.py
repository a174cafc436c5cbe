"""What decode, validate and judge hand on: rows, rejects and markers as values."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.records import Headers, Record, TopicPartition


class Reason(StrEnum):
    """Why a record could not become a row; the fixed list that dead letters name."""

    BAD_MAGIC = "bad_magic"
    UNKNOWN_SCHEMA = "unknown_schema"
    SCHEMA_INCOMPATIBLE = "schema_incompatible"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    INVALID_UTF8 = "invalid_utf8"
    ENUM_OUT_OF_RANGE = "enum_out_of_range"
    DECIMAL_OUT_OF_RANGE = "decimal_out_of_range"
    INVALID_DATE = "invalid_date"
    MALFORMED = "malformed"
    NO_VALUE = "no_value"
    BAD_MARKER = "bad_marker"
    PRICE_MUST_BE_POSITIVE = "price_must_be_positive"
    QUANTITY_MUST_BE_POSITIVE = "quantity_must_be_positive"
    SYMBOL_REQUIRED = "symbol_required"
    TRADE_ID_REQUIRED = "trade_id_required"
    MESSAGE_ID_REQUIRED = "message_id_required"
    QUOTE_ID_REQUIRED = "quote_id_required"
    COMPANY_ID_REQUIRED = "company_id_required"
    PRICE_MUST_NOT_BE_NEGATIVE = "price_must_not_be_negative"
    QUANTITY_MUST_NOT_BE_NEGATIVE = "quantity_must_not_be_negative"
    INVALID_SIDE = "invalid_side"
    INVALID_ASSET_CLASS = "invalid_asset_class"
    INVALID_EXCHANGE = "invalid_exchange"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that could not become a row."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: Reason
    text: str
    """For a person: what was expected, what was found."""
    schema_id: int | None


def reject(record: Record, reason: Reason, text: str, schema_id: int | None) -> Reject:
    """What is said of a record that cannot become a row."""
    return Reject(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        record.key,
        record.value,
        record.headers,
        reason,
        text,
        schema_id,
    )


@dataclass(frozen=True, slots=True)
class Marker:
    """A feed's word that a session starts or that it had to reconnect; makes no row."""

    topic: str
    partition: int
    offset: int
    symbol: str
    kind: str
    """"session_start" or "reconnect"."""
    session: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One batch as rows and what could not be rows.

    `rows` has the columns of its table (k2stream.rows) in offset order; side, asset_class, exchange, symbol, currency
    and topic may be dictionary-encoded until the writer casts them.
    """

    rows: pa.Table
    rejects: tuple[Reject, ...] = ()
    markers: tuple[Marker, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """One batch after judge: rows with their keys and the filter's word."""

    tp: TopicPartition
    first_offset: int
    next_offset: int
    rows: pa.Table
    keys: NDArray[np.uint64]
    """Shape (rows, 2): the 128-bit dedup key of each row."""
    maybe: NDArray[np.bool_]
    """Shape (rows,): False means the key is not in the table."""
    rejects: tuple[Reject, ...]
    markers: tuple[Marker, ...]
    holes: int
    """Offsets of this batch with no record to read, each explained."""
    marked_through: int
    """Number of the newest window whose keys were in the filter when this batch was judged."""
    size_bytes: int = 0
