"""Records of the first version (`com.k2.market_data`), turned into the contract's columns as they are read.

Written by the ASX feed alone, so they are equities in Australian dollars; a record of another exchange does not say its currency
and is a dead letter. Volumes become quantities, milliseconds microseconds, six digits after the point eight, all exactly.
What the contract has no field for (company, qualifiers, venue, buyer) goes to vendor_data.

There was no id: it is made of exchange, time and sequence number, which a record that was sent twice has both times, or else of the
record's own place in the log: two equal trades without a number are two trades.

Reference data said neither exchange nor time of ingestion: the topic's exchange is held against ASX as ever, the time is the record's
own in the log. Its dates are days in Sydney. The first is the day of listing; the last is where the vendor's records end, which is not when
the company was delisted, so it stays as it came, in vendor_data, and the company is listed until a record without a value ends it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.decode.avro_reader import BadBody
from k2stream.decode.avro_type import Field, Plain, RecordType, parse
from k2stream.decode.columns import constant_word, decimals_of, decoded_schema
from k2stream.rows import TIMESTAMP, AvroSchema, avro_schema
from k2stream.verdict import Reason

EXCHANGE, CURRENCY, ASSET_CLASS = "ASX", "AUD", "equities"
PRICE_FACTOR, VOLUME_FACTOR = 10**2, 10**8
LIMIT = 10**18
"""Unscaled values of the contract's decimals are below this."""
FOUND_CHARACTERS = 200
"""Of a text that is no date; the letter has the whole record."""

SYDNEY = ZoneInfo("Australia/Sydney")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATE = re.compile("([0-9]{2})/([0-9]{2})/([0-9]{4})")
"""Month, day and year."""

RECORD_TIME = "@timestamp_us"
"""The record's own time in the log, as if it were a field; no field of Avro can have this name."""

Columns = Mapping[str, pa.Array]
ReadBody = Callable[[bytes], dict[str, Any]]


class Conversion(Protocol):
    """From one schema of the first version to one contract."""

    @property
    def contract(self) -> RecordType:
        """The first version's own fields, and RECORD_TIME where it is used: its records are read into these."""

    @property
    def target(self) -> pa.Schema:
        """Arrow columns of `contract`."""

    def checked(self, read: ReadBody) -> ReadBody:
        """The same reader, refusing records that the contract cannot hold."""

    def columns(self, old: Sequence[pa.Array], topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> dict[str, pa.Array] | None:
        """The contract's columns by name; None if a record cannot be held, which the record-by-record path then names."""


@dataclass(frozen=True, slots=True)
class TickConversion:
    """Trades and quotes."""

    contract: RecordType
    target: pa.Schema
    prices: tuple[str, ...]
    volumes: tuple[str, ...]
    make: Callable[[Columns, pa.Array, pa.Array], dict[str, pa.Array]]

    def checked(self, read: ReadBody) -> ReadBody:
        """As Conversion says."""

        def whole(body: bytes) -> dict[str, Any]:
            row = read(body)
            if row["exchange"].upper() != EXCHANGE:
                raise BadBody(Reason.SCHEMA_INCOMPATIBLE, f"A record of version 1 says no currency; known is that of {EXCHANGE}, found {row['exchange']!r}.")
            for names, factor in ((self.prices, PRICE_FACTOR), (self.volumes, VOLUME_FACTOR)):
                for name in names:
                    if abs(row[name]) >= LIMIT // factor:
                        raise BadBody(Reason.DECIMAL_OUT_OF_RANGE, f"{name} has more than 10 digits before the point.")
            return row

        return whole

    def columns(self, old: Sequence[pa.Array], topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> dict[str, pa.Array] | None:
        """As Conversion says."""
        named = dict(zip((f.name for f in self.contract.fields), old, strict=True))
        if not pc.all(pc.equal(pc.ascii_upper(named["exchange"].dictionary), EXCHANGE)).as_py():
            return None
        for names, factor in ((self.prices, PRICE_FACTOR), (self.volumes, VOLUME_FACTOR)):
            for name in names:
                values = unscaled(named[name])
                if len(values) and max(-int(values.min()), int(values.max())) >= LIMIT // factor:
                    return None
                named[name] = decimals_of(values * factor, pa.decimal128(18, 8))
        origin = _origins(topics, partitions, offsets)
        number = pc.binary_join_element_wise(named["exchange_timestamp"].cast(pa.string()), named["sequence_number"].cast(pa.string()), "-")
        native_id = pc.binary_join_element_wise(pa.repeat(EXCHANGE, len(offsets)), pc.coalesce(number, origin), "-")
        return self.make(named, origin, native_id)


@dataclass(frozen=True, slots=True)
class CompanyConversion:
    """Reference data."""

    contract: RecordType
    target: pa.Schema

    def checked(self, read: ReadBody) -> ReadBody:
        """As Conversion says."""

        def whole(body: bytes) -> dict[str, Any]:
            row = read(body)
            for name in ("start_date", "end_date"):
                if row[name] is not None and day_us(row[name]) is None:
                    raise BadBody(Reason.INVALID_DATE, f"{name} must be a date as MM/DD/YYYY, found {row[name][:FOUND_CHARACTERS]!r}.")
            return row

        return whole

    def columns(self, old: Sequence[pa.Array], topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> dict[str, pa.Array] | None:
        """As Conversion says."""
        named = dict(zip((f.name for f in self.contract.fields), old, strict=True))
        listed, ended, count = _days(named["start_date"]), _days(named["end_date"]), len(offsets)
        if listed is None or ended is None:
            return None
        return {
            "message_id": _origins(topics, partitions, offsets),
            "company_id": named["company_id"].cast(pa.string()),
            "symbol": named["symbol"],
            "exchange": constant_word(EXCHANGE, count),
            "asset_class": constant_word(ASSET_CLASS, count),
            "company_name": named["company_name"],
            "isin": named["isin"],
            "currency": constant_word(CURRENCY, count),
            "listing_date": listed,
            "delisting_date": pa.nulls(count, TIMESTAMP),
            "is_active": pa.repeat(True, count),
            "ingestion_timestamp": named[RECORD_TIME],
            "vendor_data": _vendor_data({"end_date": named["end_date"]}),
        }


def day_us(text: str) -> int | None:
    """Start of the day in Sydney, microseconds since 1970; None if the text is no day."""
    found = DATE.fullmatch(text)
    if found is None:
        return None
    month, day, year = map(int, found.groups())
    try:
        return (datetime(year, month, day, tzinfo=SYDNEY).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def conversion_of(schema: AvroSchema, contract: str) -> Conversion | None:
    """How records of a schema become rows of a contract; None if the schema is not one of the first version for it."""
    name = f"{schema.get('namespace', '')}.{schema.get('name', '')}".lstrip(".")
    return CONVERSIONS.get((name, contract))


def unscaled(column: pa.Array) -> NDArray[np.int64]:
    """Integers of a column of longs, or of decimals of at most 18 digits."""
    if not pa.types.is_decimal(column.type):
        return np.asarray(column)
    words = np.frombuffer(column.buffers()[1], np.int64)[2 * column.offset : 2 * (column.offset + len(column))]
    return words[::2]


def _common(old: Columns, origin: pa.Array) -> dict[str, pa.Array]:
    count = len(origin)
    return {
        "message_id": origin,
        "symbol": old["symbol"],
        "exchange": old["exchange"],
        "asset_class": constant_word(ASSET_CLASS, count),
        "timestamp": _micros(old["exchange_timestamp"]),
        "currency": constant_word(CURRENCY, count),
        "source_sequence": old["sequence_number"],
        "ingestion_timestamp": _micros(old["ingestion_timestamp"]),
        "platform_sequence": pa.nulls(count, pa.int64()),
    }


def _origins(topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64]) -> pa.Array:
    """Each record's place in the log."""
    return pc.binary_join_element_wise(topics.cast(pa.string()), pa.array(partitions).cast(pa.string()), pa.array(offsets).cast(pa.string()), "/")


def _days(texts: pa.Array) -> pa.Array | None:
    """Starts of days; None if a text is no day. Each distinct text is read once."""
    coded = texts.dictionary_encode()
    starts = [day_us(text) for text in coded.dictionary.to_pylist()]
    return None if None in starts else pa.array(starts, pa.int64()).take(coded.indices).cast(TIMESTAMP)


def _micros(millis: pa.Array) -> pa.Array:
    return pc.multiply_checked(millis, 1000).cast(pa.timestamp("us", tz="UTC"))


def _trade(old: Columns, origin: pa.Array, native_id: pa.Array) -> dict[str, pa.Array]:
    count = len(origin)
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], pa.string()))
    return {
        **_common(old, origin),
        "trade_id": native_id,
        "price": old["price"],
        "quantity": old["volume"],
        "side": constant_word("UNKNOWN", count),
        "trade_conditions": empty.cast(pa.list_(pa.field("element", pa.string(), nullable=False))),
        "vendor_data": _vendor_data({name: old[name] for name in ("company_id", "qualifiers", "venue", "buyer_id")}),
    }


def _quote(old: Columns, origin: pa.Array, native_id: pa.Array) -> dict[str, pa.Array]:
    sides = {f"{side}_{new}": old[f"{side}_{was}"] for side in ("bid", "ask") for new, was in (("price", "price"), ("quantity", "volume"))}
    return {**_common(old, origin), "quote_id": native_id, **sides, "vendor_data": _vendor_data({"company_id": old["company_id"]})}


def _vendor_data(values: Columns) -> pa.Array:
    """One map a row of what is not null, in the order given."""
    texts = [column.cast(pa.string()) for column in values.values()]
    is_there = np.stack([np.asarray(t.is_valid()) for t in texts], axis=1)
    count, width = is_there.shape
    place = (np.arange(count)[:, None] + count * np.arange(width))[is_there]
    keys = pa.array(list(values)).take(pa.array(np.tile(np.arange(width), (count, 1))[is_there]))
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_there.sum(axis=1))]).astype(np.int32))
    kind = pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False))
    return pa.MapArray.from_arrays(offsets, keys, pa.concat_arrays(texts).take(pa.array(place)), kind)


def _ticks(schema: str, prices: tuple[str, ...], volumes: tuple[str, ...], make: Callable[..., dict[str, pa.Array]]) -> Conversion:
    return TickConversion(parse(avro_schema(schema)), decoded_schema(schema), prices, volumes, make)


def _companies(schema: str) -> Conversion:
    time = Field(RECORD_TIME, Plain("long"), has_default=True, default=0)
    contract = RecordType((*parse(avro_schema(schema)).fields, time))
    return CompanyConversion(contract, decoded_schema(schema).append(pa.field(RECORD_TIME, TIMESTAMP)))


CONVERSIONS: Mapping[tuple[str, str], Conversion] = {
    ("com.k2.market_data.Trade", "trade_v2"): _ticks("trade_v1", ("price",), ("volume",), _trade),
    ("com.k2.market_data.Quote", "quote_v2"): _ticks("quote_v1", ("bid_price", "ask_price"), ("bid_volume", "ask_volume"), _quote),
    ("com.k2.market_data.ReferenceData", "reference_data_v2"): _companies("reference_data_v1"),
}
