"""Which Avro bodies are worth a joined read: many walked at once, field by field, each with a position of its own.

A position only grows, and what is seen to be bad goes on from a place behind all bodies: whoever stands at the end of its body at last was well all the way.

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
from k2stream.decode.varint import PADDING, Mask, Places, read_varints, words_of

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
    trap: int
    """Behind all bodies, with zeros from there: what is read there leads a few bytes on, and is led back before they end."""

    def of(self, which: NDArray[np.int64] | Mask) -> "Bodies":
        """Some of them."""
        return Bodies(self.data, self.ends[which], self.trap)

    def going_on(self, is_well: Mask, at: Places) -> Places:
        """From there those that are well, the others from the trap."""
        return np.where(is_well, at, self.trap)


Step = Callable[[Bodies, Places], Places]
"""(bodies, where a value of each begins) -> where it ends."""


def passing(data: NDArray[np.uint8], starts: Places, ends: Places, schema: RecordType) -> Mask:
    """Whether the padded bytes from start to end look like a body of `schema`, for each body."""
    bodies = Bodies(data, ends, len(data) - len(PADDING) + 1)
    at = bodies.going_on(starts <= ends, starts)
    for field in schema.fields:
        at = np.minimum(_step(field.type)(bodies, at), bodies.trap)
    is_passing: Mask = at == ends
    return is_passing


def _step(t: AvroType) -> Step:
    match t:
        case Plain("int" | "long", logical):
            return _number(SPANS.get(logical) or (INT_SPAN if t.name == "int" else None))
        case Plain("string"):
            return _string
        case Plain("bytes"):
            return _sized(0, None)
        case Plain("boolean"):
            return lambda bodies, at: bodies.going_on(bodies.data[at] <= 1, at + 1)
        case Plain(name):
            return _fixed(FIXED_PLAIN[name])
        case Fixed(size):
            return _fixed(size)
        case Decimal(precision):  # held back if so many bytes can hold more digits than the type
            return _sized(1, ((10**precision).bit_length() - 1) // 8)
        case Enum(symbols):
            return _number((0, len(symbols) - 1))
        case Array(items):
            return _items(_step(items))
        case Map(values):
            step = _step(values)
            return _items(lambda bodies, at: step(bodies, _string(bodies, at)))
    inside = nullable(t)
    return _refused if inside is None else _optional(t.branches.index(Plain("null")), _step(inside))  # type: ignore[union-attr] # nullable says so


def _refused(bodies: Bodies, at: Places) -> Places:
    return np.full(len(at), bodies.trap)


def _varint(bodies: Bodies, at: Places) -> tuple[NDArray[np.int64], Places]:
    number, end, is_well = read_varints(bodies.data, at)
    return number, end if is_well.all() else bodies.going_on(is_well, end)


def _number(span: tuple[int, int] | None) -> Step:
    def step(bodies: Bodies, at: Places) -> Places:
        number, end = _varint(bodies, at)
        return end if span is None else bodies.going_on((number >= span[0]) & (number <= span[1]), end)

    return step


def _fixed(size: int) -> Step:
    return lambda bodies, at: np.minimum(at + size, bodies.trap)


def _sized(least: int, most: int | None) -> Step:
    def step(bodies: Bodies, at: Places) -> Places:
        length, first = _varint(bodies, at)
        room = bodies.ends - first
        is_well = (length >= least) & (length <= (room if most is None else np.minimum(room, most)))
        return bodies.going_on(is_well, first + length)

    return step


def _string(bodies: Bodies, at: Places) -> Places:
    length, first = _varint(bodies, at)
    is_well = (length >= 0) & (length <= bodies.ends - first)
    words = words_of(bodies.data)
    is_well &= (words[first] & HIGH_BITS[np.minimum(length.view(np.uint64), 8)]) == 0
    longer, done = np.flatnonzero(is_well & (length > 8)), 8
    while len(longer) and done < LONGEST_STRING_BYTES:
        is_well[longer] = (words[first[longer] + done] & HIGH_BITS[np.minimum(length[longer] - done, 8)]) == 0
        done += 8
        longer = longer[is_well[longer] & (length[longer] > done)]
    is_well[longer] = False
    return bodies.going_on(is_well, first + length)


def _optional(null_branch: int, inside: Step) -> Step:
    def step(bodies: Bodies, at: Places) -> Places:
        branch = bodies.data[at]
        is_there = branch == 2 * (1 - null_branch)
        if is_there.all():
            return inside(bodies, at + 1)
        ends = bodies.going_on(branch == 2 * null_branch, at + 1)
        which = np.flatnonzero(is_there)
        if len(which):
            ends[which] = inside(bodies.of(which), at[which] + 1)
        return ends

    return step


def _items(item: Step) -> Step:
    """One block of items and its end, or the end alone."""

    def step(bodies: Bodies, at: Places) -> Places:
        count, at = _varint(bodies, at)
        at = bodies.going_on((count >= 0) & (count <= MOST_ITEMS), at)
        which = np.flatnonzero((count > 0) & (at < bodies.trap))
        left, here, some = count[which], at[which], bodies.of(which)
        while len(which):
            here = np.minimum(item(some, here), bodies.trap)
            left = left - 1
            is_last = left == 0
            if is_last.any():
                at[which[is_last]] = bodies.going_on(bodies.data[here[is_last]] == 0, here[is_last] + 1)
                which, left, here, some = which[~is_last], left[~is_last], here[~is_last], some.of(~is_last)
        return at

    return step
