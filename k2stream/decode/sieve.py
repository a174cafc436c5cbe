"""Which Avro bodies are worth a joined read: many walked at once, field by field, each with a position of its own.

A columnar reader refuses a block for one bad record and does not say which. Nothing is proven here: bodies that pass are read by
k2stream.decode.block with its proof, those held back go record by record, where it is decided. So a body may be held back for
looking odd (letters beyond ASCII, more than MOST_ITEMS entries), but nearly all that the proof would refuse must be.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from k2stream.decode.avro_type import SPANS, Array, AvroType, Decimal, Enum, Fixed, Map, Plain, RecordType, nullable
from k2stream.decode.encoded_size import FIXED_PLAIN
from k2stream.decode.varint import Mask, Places, read_varints, words_of

MOST_ITEMS = 32
LONGEST_STRING_BYTES = 512
HIGH_BITS = np.array([0x8080808080808080 & ((1 << 8 * n) - 1) for n in range(9)], np.uint64)
"""Of the first n bytes of a word: set in none that is ASCII."""
INT_SPAN = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Bodies:
    """Bytes, and the ends of the bodies in them."""

    data: NDArray[np.uint8]
    """Padded."""
    ends: Places

    def of(self, which: NDArray[np.int64]) -> "Bodies":
        """Some of them."""
        return Bodies(self.data, self.ends[which])


Walked = tuple[Places, Mask]
"""Where each body goes on, and whether all was well so far."""


def passing(data: NDArray[np.uint8], starts: Places, ends: Places, schema: RecordType) -> Mask:
    """Whether the padded bytes from start to end look like a body of `schema`, for each body."""
    if not len(starts):
        return np.zeros(0, np.bool_)
    bodies = Bodies(data, ends)
    at, is_well = starts, starts <= ends
    for field in schema.fields:
        at, is_fine = _walk(field.type, bodies, np.where(is_well, at, ends))
        is_well &= is_fine & (at <= ends)
    is_well &= at == ends
    return is_well


def _walk(t: AvroType, bodies: Bodies, at: Places) -> Walked:
    match t:
        case Plain("int" | "long", logical):
            return _number(bodies, at, SPANS.get(logical) or (INT_SPAN if t.name == "int" else None))
        case Plain("string"):
            return _string(bodies, at)
        case Plain("bytes"):
            return _sized(bodies, at)
        case Plain("boolean"):
            return at + 1, bodies.data[at] <= 1
        case Plain(name):
            return at + FIXED_PLAIN[name], np.ones(len(at), np.bool_)
        case Fixed(size):
            return at + size, np.ones(len(at), np.bool_)
        case Decimal(precision):
            return _decimal(bodies, at, precision)
        case Enum(symbols):
            return _number(bodies, at, (0, len(symbols) - 1))
        case Array(items):
            return _items(bodies, at, lambda some, there: _walk(items, some, there))
        case Map(values):
            return _items(bodies, at, lambda some, there: _pair(values, some, there))
    inside = nullable(t)
    return (at, np.zeros(len(at), np.bool_)) if inside is None else _optional(t.branches.index(Plain("null")), inside, bodies, at)  # type: ignore[union-attr] # nullable says so


def _number(bodies: Bodies, at: Places, span: tuple[int, int] | None) -> Walked:
    number, at, is_well = read_varints(bodies.data, at)
    return at, is_well if span is None else is_well & (number >= span[0]) & (number <= span[1])


def _sized(bodies: Bodies, at: Places) -> Walked:
    length, at, is_well = read_varints(bodies.data, at)
    is_well &= (length >= 0) & (length <= bodies.ends - at)
    return np.where(is_well, at + length, bodies.ends), is_well


def _string(bodies: Bodies, at: Places) -> Walked:
    length, first, is_well = read_varints(bodies.data, at)
    is_well &= (length >= 0) & (length <= bodies.ends - first)
    length = np.where(is_well, length, 0)
    return np.where(is_well, first + length, bodies.ends), is_well & _are_ascii(bodies.data, np.minimum(first, bodies.ends), length)


def _are_ascii(data: NDArray[np.uint8], at: Places, lengths: NDArray[np.int64]) -> Mask:
    """Whether so many bytes from these places are; what is longer than LONGEST_STRING_BYTES is not looked through."""
    words = words_of(data)
    is_ascii: Mask = (words[at] & HIGH_BITS[np.minimum(lengths, 8)]) == 0
    longer, done = np.flatnonzero(lengths > 8), 8
    while len(longer) and done < LONGEST_STRING_BYTES:
        is_ascii[longer] &= (words[at[longer] + done] & HIGH_BITS[np.minimum(lengths[longer] - done, 8)]) == 0
        done += 8
        longer = longer[lengths[longer] > done]
    is_ascii[longer] = False
    return is_ascii


def _decimal(bodies: Bodies, at: Places, precision: int) -> Walked:
    """Held back if so many bytes can hold more digits than the type."""
    length, first, is_well = read_varints(bodies.data, at)
    most = ((10**precision).bit_length() - 1) // 8
    is_well &= (length >= 1) & (length <= most) & (length <= bodies.ends - first)
    return np.where(is_well, first + length, bodies.ends), is_well


def _optional(null_branch: int, inside: AvroType, bodies: Bodies, at: Places) -> Walked:
    branch = bodies.data[at]
    is_there = branch == 2 * (1 - null_branch)
    is_well = is_there | (branch == 2 * null_branch)
    return _some(is_there, lambda some, there: _walk(inside, some, there), bodies, at + 1, is_well)


def _pair(values: AvroType, bodies: Bodies, at: Places) -> Walked:
    at, is_key = _string(bodies, at)
    at, is_value = _walk(values, bodies, at)
    return at, is_key & is_value


def _items(bodies: Bodies, at: Places, step: Callable[[Bodies, Places], Walked]) -> Walked:
    """One block of items and its end, or the end alone."""
    count, at, is_well = read_varints(bodies.data, at)
    is_well &= (count >= 0) & (count <= MOST_ITEMS)
    for n in range(int(count[is_well].max(initial=0))):
        at, is_well = _some(is_well & (n < count), step, bodies, at, is_well)
    has_end = count > 0
    is_well &= ~has_end | (bodies.data[np.minimum(at, bodies.ends)] == 0)
    return at + has_end, is_well


def _some(chosen: Mask, step: Callable[[Bodies, Places], Walked], bodies: Bodies, at: Places, is_well: Mask) -> Walked:
    """One step of the chosen ones; the others stay."""
    which = np.flatnonzero(chosen)
    if not len(which):
        return at, is_well
    there, is_fine = step(bodies.of(which), np.minimum(at[which], bodies.ends[which]))
    at, is_well = at.copy(), is_well.copy()
    at[which] = there
    is_well[which] &= is_fine
    return at, is_well
