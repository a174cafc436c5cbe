"""Values of any column as JSON has them, the same whoever reads them: what a changelog gives back equals what was written."""

import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa


def has_plain_values(kind: pa.DataType) -> bool:
    """False for what writers cannot add and only a person can: records, and lists and maps of anything but plain values."""
    if pa.types.is_map(kind):
        return pa.types.is_string(kind.key_type) and not pa.types.is_nested(kind.item_type) and not pa.types.is_temporal(kind.item_type)
    if pa.types.is_list(kind):
        return not pa.types.is_nested(kind.value_type) and not pa.types.is_temporal(kind.value_type)
    return not pa.types.is_nested(kind)


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """Numbers, words and booleans as they are, maps as objects; times in ISO 8601, decimals as text, bytes in hexadecimal digits.

    What JSON has no word for is text too: numbers that are none or have no end, and times beyond the year 9999.
    """
    plain = _plain_of(column.type)
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):  # a time that Python has no date for
        values = [_value_or_text(value) for value in column]
    return [None if value is None else plain(value) for value in values]


def _plain_of(kind: pa.DataType) -> Callable[[Any], Any]:
    if pa.types.is_map(kind):
        item = _plain_of(kind.item_type)
        return lambda pairs: {key: item(value) for key, value in pairs}
    if pa.types.is_list(kind):
        item = _plain_of(kind.value_type)
        return lambda values: [item(value) for value in values]
    return _plain


def _plain(value: Any) -> Any:
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case bytes():
            return value.hex()
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _value_or_text(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        is_day = pa.types.is_date32(value.type)
        text = np.datetime_as_string(np.datetime64(value.value, "D" if is_day else value.type.unit))
        return f"{text}+00:00" if not is_day and value.type.tz else text
