"""Numbers as files write them -> exact decimals and whole numbers, a column at a time; nothing passes through a float.

Arrow refuses a column for one bad text, so a column that it refuses is halved until the bad ones stand alone.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.rows import DECIMAL

Mask = NDArray[np.bool_]

GROUPED = r"^[+-]?\d{{1,3}}(?:{thousands}\d{{3}})*(?:{decimal}\d*)?$"


def cast(values: pa.Array, to: pa.DataType) -> tuple[pa.Array, Mask]:
    """Values of another type, null where there is none, and which could not be cast without loss."""
    bad = np.zeros(len(values), bool)
    pieces: list[pa.Array] = []
    _cast_into(values, to, 0, bad, pieces)
    return pa.concat_arrays(pieces) if pieces else pa.array([], to), bad


def _cast_into(values: pa.Array, to: pa.DataType, at: int, bad: Mask, pieces: list[pa.Array]) -> None:
    try:
        pieces.append(values.cast(to))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(values) == 1:
            bad[at] = True
            pieces.append(pa.nulls(1, to))
            return
        half = len(values) // 2
        _cast_into(values.slice(0, half), to, at, bad, pieces)
        _cast_into(values.slice(half), to, at + half, bad, pieces)


def plain(texts: pa.Array, *, decimal: str, thousands: str) -> tuple[pa.Array, Mask]:
    """Texts with a point before the decimals and nothing between thousands, and which of them are written otherwise than said."""
    bad = np.zeros(len(texts), bool)
    if decimal == "," and thousands != ".":
        bad |= _true(pc.match_substring(texts, "."))  # 1.234 is a thousand to some
    if thousands:
        grouped = pc.match_substring_regex(texts, GROUPED.format(thousands=re.escape(thousands), decimal=re.escape(decimal)))
        bad |= _true(pc.and_(pc.match_substring(texts, thousands), pc.invert(grouped)))
        texts = pc.replace_substring(texts, thousands, "")
    return (texts if decimal == "." else pc.replace_substring(texts, ",", ".")), bad


def decimals(texts: pa.Array, *, decimal: str = ".", thousands: str = "") -> tuple[pa.Array, Mask]:
    """decimal128(18, 8); a number with more decimals, or more digits before them, is bad and never rounded."""
    points, bad = plain(texts, decimal=decimal, thousands=thousands)
    values, refused = cast(points, DECIMAL)
    return values, bad | refused


def whole(texts: pa.Array, *, thousands: str = "") -> tuple[pa.Array, Mask]:
    """int64; a number with decimals is bad."""
    points, bad = plain(texts, decimal=".", thousands=thousands)
    values, refused = cast(points, pa.int64())
    return values, bad | refused


def _true(mask: pa.Array) -> Mask:
    found: Mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return found
