"""Times as files write them -> microseconds since the epoch, a column at a time; a date that no calendar has is no time.

Arrow's own strptime takes 30 February for 2 March and knows no fractions, so the parts are taken out by a pattern and put together here.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.load.numbers import cast

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ZONE = r"(?:[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)"
PARTS = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "b": rf"(?P<b>(?i:{'|'.join(MONTHS)}))",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "p": r"(?P<p>(?i:am|pm))",
    "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})",
    "f": r"(?P<f>\d{1,9})",
    "z": rf"(?P<z>{ZONE})",
    "%": "%",
}
"""strptime's directives. `%f` takes one to nine digits, or none where a point or comma stands before it; what is finer than a microsecond is cut off."""
ISO = rf"^(?P<Y>\d{{4}})-(?P<m>\d{{2}})-(?P<d>\d{{2}})(?:[Tt ](?P<H>\d{{2}}):(?P<M>\d{{2}})(?::(?P<S>\d{{2}})(?:[.,](?P<f>\d{{1,9}}))?)?)? ?(?P<z>{ZONE})?$"

MOST_HOURS = 14
"""Between UTC and any clock."""

COUNTED = pa.decimal128(28, 9)
UNITS = {unit: pa.scalar(Decimal(micros)) for unit, micros in (("s", "1000000"), ("ms", "1000"), ("us", "1"), ("ns", "0.001"))}
"""Unit -> microseconds; what is finer than a microsecond is cut off."""

Mask = NDArray[np.bool_]
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Times:
    """Times as int64 microseconds since the epoch, and which of them are none."""

    values: Longs
    bad: Mask


def directives_unknown(text: str) -> list[str]:
    """Directives of a format that are not among PARTS."""
    return [f"%{d}" for d in re.findall(r"%(.)", text) if d not in PARTS]


def pattern_of(text: str) -> str:
    """RE2 pattern of a strptime format; ISO 8601 for an empty one."""
    if not text:
        return ISO
    pieces = re.split(r"([.,]%f|%.)", text)
    return "^" + "".join(_piece(p) for p in pieces) + "$"


def _piece(piece: str) -> str:
    if piece[1:] == "%f":  # who writes a whole second leaves its fraction out
        return f"(?:{re.escape(piece[0])}{PARTS['f']})?"
    return PARTS[piece[1]] if len(piece) == 2 and piece[0] == "%" else re.escape(piece)


def written(texts: pa.Array, *, form: str, timezone: str) -> Times:
    """Texts of a format; those that name no zone are of `timezone`, and none at all if that is empty too.

    An hour that comes twice is the first of the two; one that a clock skipped is no time.
    """
    parts = pc.extract_regex(texts, pattern=pattern_of(form))
    fields = {f.name: parts.field(f.name) for f in parts.type}
    present = parts.is_valid().to_numpy(zero_copy_only=False)
    day, good = _days(fields)
    clock, right = _clock(fields)
    local = day * 86_400_000_000 + clock
    offset, named, real = _offsets(fields.get("z"), len(texts))
    bad = ~(present & good & right & real)
    zone = zoned(np.where(bad, 0, local), timezone)
    values = np.where(named, local - offset, zone.values)
    return Times(np.where(bad, 0, values), bad | (zone.bad & ~named))


def zoned(local: Longs, timezone: str) -> Times:
    """Local times of a zone; without a zone, no time is one."""
    if not timezone:
        return Times(local, np.ones(len(local), bool))
    naive = pa.array(local).cast(pa.timestamp("us"))
    first, last = (pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent=side).cast(pa.int64()).to_numpy() for side in ("earliest", "latest"))
    return Times(first, first != last)


def counted(texts: pa.Array, *, unit: str) -> Times:
    """Decimal counts of a unit since 1970, fractions allowed."""
    counts, bad = cast(texts, COUNTED)
    micros, beyond = cast(pc.floor(pc.multiply(counts, UNITS[unit])), pa.int64())
    return Times(micros.fill_null(0).to_numpy(), bad | beyond)


def _int(column: pa.Array | None, count: int, default: int) -> Longs:
    if column is None:
        return np.full(count, default, np.int64)
    filled = pc.if_else(pc.equal(pc.fill_null(pc.binary_length(column), 0), 0), str(default), column)
    found: Longs = filled.cast(pa.int64()).to_numpy()
    return found


def _days(fields: dict[str, pa.Array]) -> tuple[Longs, Mask]:
    """Days since the epoch, and which dates exist."""
    count = len(next(iter(fields.values())))
    year = _int(fields.get("Y"), count, 1970)
    if "y" in fields:
        short = _int(fields["y"], count, 70)
        year = short + np.where(short < 69, 2000, 1900)  # POSIX
    month = _int(fields.get("m"), count, 1)
    if "b" in fields:
        month = pc.index_in(pc.utf8_lower(fields["b"]), pa.array(MONTHS)).fill_null(0).to_numpy().astype(np.int64) + 1
    day = _int(fields.get("d"), count, 1)
    good = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    first = (np.where(good, (year - 1970) * 12 + month - 1, 0)).astype("datetime64[M]")
    starts = first.astype("datetime64[D]").astype(np.int64)
    length = (first + 1).astype("datetime64[D]").astype(np.int64) - starts
    return starts + day - 1, good & (day <= length)


def _clock(fields: dict[str, pa.Array]) -> tuple[Longs, Mask]:
    """Microseconds since midnight, and which of them exist: a leap second does not."""
    count = len(next(iter(fields.values())))
    hour = _int(fields.get("H"), count, 0)
    good = np.ones(count, bool)
    if "I" in fields:
        twelve = _int(fields["I"], count, 12)
        good &= (twelve >= 1) & (twelve <= 12)
        after = pc.equal(pc.utf8_lower(fields["p"]), "pm").fill_null(False).to_numpy(zero_copy_only=False) if "p" in fields else np.zeros(count, bool)
        hour = twelve % 12 + np.where(after, 12, 0)
    minute, second = _int(fields.get("M"), count, 0), _int(fields.get("S"), count, 0)
    fraction = np.zeros(count, np.int64)
    if "f" in fields:
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.fill_null(fields["f"], ""), 6, "0"), 0, 6)
        fraction = digits.cast(pa.int64()).to_numpy()
    good &= (hour < 24) & (minute < 60) & (second < 60)
    return ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction, good


def _offsets(zones: pa.Array | None, count: int) -> tuple[Longs, Mask, Mask]:
    """Microseconds east of UTC, who names a zone, and where it is one that a clock can have."""
    if zones is None:
        return np.zeros(count, np.int64), np.zeros(count, bool), np.ones(count, bool)
    encoded = pc.fill_null(zones, "").dictionary_encode()
    found = [(_offset_us(z), bool(z)) for z in encoded.dictionary.to_pylist()]
    offsets = np.array([offset or 0 for offset, _ in found], np.int64)
    named = np.array([is_named for _, is_named in found], bool)
    real = np.array([offset is not None for offset, _ in found], bool)
    at = encoded.indices.to_numpy()
    return offsets[at], named[at], real[at]


def _offset_us(zone: str) -> int | None:
    """None for an offset that no clock has."""
    if zone[:1] not in ("+", "-"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > MOST_HOURS or minutes >= 60:
        return None
    return (1 if zone[0] == "+" else -1) * (hours * 60 + minutes) * 60_000_000
