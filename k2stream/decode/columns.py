"""Decoded values as the columns of a table of rows, whichever path read them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.rows import SAMPLE_KEY, avro_schema, table_schema

WORD = pa.dictionary(pa.int32(), pa.string())
REPEATING = frozenset({"symbol", "exchange", "currency", "topic"})
"""Columns of few distinct strings: as dictionaries they are validated, hashed and sorted once a word."""


def decoded_schema(name: str) -> pa.Schema:
    """A table's schema (k2stream.rows) with its words as dictionaries."""
    enums = {f["name"] for f in avro_schema(name)["fields"] if isinstance(f["type"], dict) and f["type"]["type"] == "enum"}
    return pa.schema(f.with_type(WORD) if f.name in REPEATING | enums else f for f in table_schema(name))


def column_of(values: Sequence[Any], t: pa.DataType) -> pa.Array:
    """Values as the record reader gives them: unscaled decimals, times as integers, words as strings."""
    if pa.types.is_decimal(t):
        return decimals_of(np.array(values, dtype=np.int64), t)
    return pa.array(values, pa.string()).dictionary_encode() if pa.types.is_dictionary(t) else pa.array(values, t)


def decimals_of(unscaled: NDArray[np.int64], t: pa.DataType, is_null: NDArray[np.bool_] | None = None) -> pa.Array:
    """Decimals of at most 18 digits; null where a mask says so."""
    words = np.empty((len(unscaled), 2), dtype="<i8")
    words[:, 0], words[:, 1] = unscaled, unscaled >> 63
    valid = None if is_null is None else pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(t, len(unscaled), [valid, pa.py_buffer(words)])


def is_sample(vendor_data: pa.MapArray) -> pa.Array:
    """True where vendor_data says so (any entry of the key, should it stand twice)."""
    says = pc.and_(pc.equal(vendor_data.keys, SAMPLE_KEY), pc.equal(vendor_data.items, "true"))
    result = np.zeros(len(vendor_data), dtype=bool)
    entries = np.flatnonzero(says.fill_null(False).to_numpy(zero_copy_only=False))
    if len(entries):
        offsets = np.asarray(vendor_data.offsets)
        result[np.searchsorted(offsets, entries, side="right") - 1] = True
    return pa.array(result)


def constant_word(word: str, count: int) -> pa.Array:
    """The same word `count` times."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([word]))


def origin_columns(topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64], vendor_data: pa.Array | None) -> list[pa.Array]:
    """is_sample_data, topic, partition, offset: k2stream.rows.ORIGIN_FIELDS."""
    sample = pa.array(np.zeros(len(offsets), bool)) if vendor_data is None else is_sample(vendor_data)
    return [sample, topics, pa.array(partitions), pa.array(offsets)]
