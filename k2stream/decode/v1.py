"""Records of the first version (`com.k2.market_data`), turned into the contract's columns as they are read.

Written by the ASX feed alone, so they are equities in Australian dollars; a record of another exchange does not say its currency
and is a dead letter. Volumes become quantities, milliseconds microseconds, six digits after the point eight, all exactly.
What the contract has no field for (company, qualifiers, venue, buyer) goes to vendor_data.

There was no id: it is made of exchange, time and sequence number, which a record that was sent twice has both times, or else of the
record's own place in the log: two equal trades without a number are two trades.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.decode.avro_reader import BadBody
from k2stream.decode.avro_type import RecordType, parse
from k2stream.decode.columns import constant_word, decimals_of, decoded_schema
from k2stream.rows import AvroSchema, avro_schema
from k2stream.verdict import Reason

EXCHANGE, CURRENCY, ASSET_CLASS = "ASX", "AUD", "equities"
PRICE_FACTOR, VOLUME_FACTOR = 10**2, 10**8
LIMIT = 10**18
"""Unscaled values of the contract's decimals are below this."""

Columns = Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Conversion:
    """From one schema of the first version to one contract."""

    contract: RecordType
    """The first version's own fields: its records are read into these."""
    target: pa.Schema
    prices: tuple[str, ...]
    volumes: tuple[str, ...]
    make: Callable[[Columns, pa.Array, pa.Array], dict[str, pa.Array]]

    def checked(self, read: Callable[[bytes], dict[str, Any]]) -> Callable[[bytes], dict[str, Any]]:
        """The same reader, refusing records that the contract cannot hold."""

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
        """The contract's columns by name; None if a record cannot be held, which the record-by-record path then names."""
        named = dict(zip((f.name for f in self.contract.fields), old, strict=True))
        if not pc.all(pc.equal(pc.ascii_upper(named["exchange"].dictionary), EXCHANGE)).as_py():
            return None
        for names, factor in ((self.prices, PRICE_FACTOR), (self.volumes, VOLUME_FACTOR)):
            for name in names:
                values = unscaled(named[name])
                if len(values) and max(-int(values.min()), int(values.max())) >= LIMIT // factor:
                    return None
                named[name] = decimals_of(values * factor, pa.decimal128(18, 8))
        origin = pc.binary_join_element_wise(topics.cast(pa.string()), pa.array(partitions).cast(pa.string()), pa.array(offsets).cast(pa.string()), "/")
        number = pc.binary_join_element_wise(named["exchange_timestamp"].cast(pa.string()), named["sequence_number"].cast(pa.string()), "-")
        native_id = pc.binary_join_element_wise(pa.repeat(EXCHANGE, len(offsets)), pc.coalesce(number, origin), "-")
        return self.make(named, origin, native_id)


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


def _conversion(schema: str, prices: tuple[str, ...], volumes: tuple[str, ...], make: Callable[..., dict[str, pa.Array]]) -> Conversion:
    return Conversion(parse(avro_schema(schema)), decoded_schema(schema), prices, volumes, make)


CONVERSIONS: Mapping[tuple[str, str], Conversion] = {
    ("com.k2.market_data.Trade", "trade_v2"): _conversion("trade_v1", ("price",), ("volume",), _trade),
    ("com.k2.market_data.Quote", "quote_v2"): _conversion("quote_v1", ("bid_price", "ask_price"), ("bid_volume", "ask_volume"), _quote),
}
