"""Avro bodies read one by one, strictly: every byte accounted for, every refusal with its reason.

fastavro is not asked: it rounds decimals past their precision and takes a negative length for "the rest".
"""

import struct
from collections.abc import Callable
from typing import Any

from k2stream.decode.avro_type import SPANS, Array, AvroType, Decimal, Enum, Field, Fixed, Map, Plain, RecordType, Union
from k2stream.decode.varint import VARINT_BYTES
from k2stream.errors import DecodeError
from k2stream.verdict import Reason

Read = Callable[[bytes, int], tuple[Any, int]]
"""(body, position) -> value, position after it; raises BadBody."""

WIDER = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}}


class BadBody(Exception):
    """A body that is not what its schema says; caught by the record decoder, never seen outside."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def reader_of(writer: RecordType, reader: RecordType) -> Callable[[bytes], dict[str, Any]]:
    """Reads whole bodies written as `writer` into the fields of `reader`; raises DecodeError if Avro cannot resolve the two.

    Decimals come as unscaled integers, times as integers, maps as lists of pairs (a key may stand twice).
    """
    read = _record(writer, reader)

    def whole(body: bytes) -> dict[str, Any]:
        value, end = read(body, 0)
        if end != len(body):
            raise BadBody(Reason.TRAILING_BYTES, f"The body ends at byte {end}, found {len(body) - end} bytes after it.")
        row: dict[str, Any] = value
        return row

    return whole


def _resolve(w: AvroType, r: AvroType) -> Read:
    if isinstance(w, Union):
        return _union(w, r)
    if isinstance(r, Union):
        return _branch(w, r)
    match w, r:
        case Plain(), Plain():
            return _plain(w, r)
        case Decimal(), Decimal() if w.scale == r.scale and w.precision <= r.precision:
            return _decimal(r)
        case Enum(), Enum():
            return _enum(w, r)
        case Fixed(), Fixed() if w == r:
            return _fixed(w.size)
        case Array(Plain("string")), Array(Plain("string")):
            return _texts(1)
        case Array(), Array():
            return _blocks(_resolve(w.items, r.items))
        case Map(Plain("string")), Map(Plain("string")):
            return _texts(2)
        case Map(), Map():
            return _blocks(_pair(_resolve(w.values, r.values)))
        case RecordType(), RecordType():
            return _record(w, r)
    raise DecodeError(f"{w} cannot be read as {r}")


def _branch(w: AvroType, r: Union) -> Read:
    for candidate in sorted(r.branches, key=lambda b: b != w):
        try:
            return _resolve(w, candidate)
        except DecodeError:
            continue
    raise DecodeError(f"{w} cannot be read as any of {r.branches}")


def _union(w: Union, r: AvroType) -> Read:
    reads: list[Read | None] = []
    for branch in w.branches:
        try:
            reads.append(_resolve(branch, r))
        except DecodeError:
            reads.append(None)
    if not any(reads):
        raise DecodeError(f"{w} cannot be read as {r}")

    def read(body: bytes, at: int) -> tuple[Any, int]:
        index, at = read_long(body, at)
        if not 0 <= index < len(reads):
            raise BadBody(Reason.MALFORMED, f"A union of {len(reads)} types has no branch {index} (byte {at}).")
        branch = reads[index]
        if branch is None:
            raise BadBody(Reason.MALFORMED, f"Branch {index} of the writer's union has no place in the contract (byte {at}).")
        return branch(body, at)

    return read


def _record(w: RecordType, r: RecordType) -> Read:
    wanted = {name: f for f in r.fields for name in (f.name, *f.aliases)}
    steps: list[tuple[str | None, Read]] = []
    for field in w.fields:
        target = wanted.get(field.name)
        try:
            steps.append((target.name if target else None, _resolve(field.type, target.type if target else field.type)))
        except DecodeError as exc:
            raise DecodeError(f"field {field.name}: {exc}") from exc
    defaults = {f.name: _default(f) for f in r.fields if f.name not in {name for name, _ in steps}}

    def read(body: bytes, at: int) -> tuple[Any, int]:
        row = dict(defaults)
        for name, step in steps:
            value, at = step(body, at)
            if name is not None:
                row[name] = value
        return row, at

    return read


def _default(field: Field) -> Any:
    if not field.has_default:
        raise DecodeError(f"field {field.name}: the writer's schema has none and the contract gives no default")
    return list(field.default.items()) if isinstance(field.default, dict) else field.default


def read_long(body: bytes, at: int) -> tuple[int, int]:
    """One zigzag varint of at most 64 bits."""
    if at < len(body) and (byte := body[at]) < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value = shift = 0
    for position in range(at, at + VARINT_BYTES):
        if position >= len(body):
            raise BadBody(Reason.TRUNCATED, f"The body ends inside a number at byte {at}.")
        byte = body[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return (value >> 1) ^ -(value & 1), position + 1
        shift += 7
    raise BadBody(Reason.MALFORMED, f"The number at byte {at} takes more than 64 bits.")


def _take(body: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size < 0:
        raise BadBody(Reason.MALFORMED, f"Length {size} before byte {at}; lengths are not negative.")
    if size > len(body) - at:
        raise BadBody(Reason.TRUNCATED, f"{size} bytes should follow at byte {at}, found {len(body) - at}.")
    return body[at : at + size], at + size


def _bytes(body: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(body, at)
    return _take(body, at, size)


def _string(body: bytes, at: int) -> tuple[str, int]:
    if at < len(body) and not (head := body[at]) & 0x81 and (end := at + 1 + (head >> 1)) <= len(body):
        raw = body[at + 1 : end]  # a length of one byte, as nearly all are
    else:
        raw, end = _bytes(body, at)
    try:
        return raw.decode("utf-8"), end
    except UnicodeDecodeError as exc:
        raise BadBody(Reason.INVALID_UTF8, f"The string at byte {at} is not UTF-8: {exc.reason}.") from exc


def _int(body: bytes, at: int) -> tuple[int, int]:
    value, end = read_long(body, at)
    if not -(2**31) <= value < 2**31:
        raise BadBody(Reason.MALFORMED, f"The int at byte {at} takes more than 32 bits.")
    return value, end


def _boolean(body: bytes, at: int) -> tuple[bool, int]:
    raw, end = _take(body, at, 1)
    return raw != b"\0", end


def _null(_: bytes, at: int) -> tuple[None, int]:
    return None, at


def _real(form: str) -> Read:
    packed = struct.Struct(form)

    def read(body: bytes, at: int) -> tuple[float, int]:
        raw, end = _take(body, at, packed.size)
        return packed.unpack(raw)[0], end

    return read


def _fixed(size: int) -> Read:
    return lambda body, at: _take(body, at, size)


PLAIN_READS: dict[str, Read] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": read_long,
    "float": _real("<f"),
    "double": _real("<d"),
    "bytes": _bytes,
    "string": _string,
}


def _plain(w: Plain, r: Plain) -> Read:
    if w.logical != r.logical and w.logical is not None and r.logical is not None:
        raise DecodeError(f"{w.logical} cannot be read as {r.logical}")
    if w.name == r.name:
        return _within(PLAIN_READS[w.name], SPANS[w.logical]) if w.logical in SPANS else PLAIN_READS[w.name]
    if r.name not in WIDER.get(w.name, set()):
        raise DecodeError(f"{w.name} cannot be read as {r.name}")
    return PLAIN_READS[w.name] if r.name == "long" else _as_float(PLAIN_READS[w.name])


def _within(read_number: Read, span: tuple[int, int]) -> Read:
    def read(body: bytes, at: int) -> tuple[int, int]:
        value, end = read_number(body, at)
        if not span[0] <= value <= span[1]:
            raise BadBody(Reason.MALFORMED, f"The time at byte {at} lies between {span[0]} and {span[1]}, found {value}.")
        return value, end

    return read


def _as_float(read_number: Read) -> Read:
    def read(body: bytes, at: int) -> tuple[float, int]:
        value, end = read_number(body, at)
        return float(value), end

    return read


def _decimal(r: Decimal) -> Read:
    limit = 10**r.precision

    def read(body: bytes, at: int) -> tuple[int, int]:
        raw, end = _bytes(body, at)
        if not raw:
            raise BadBody(Reason.MALFORMED, f"The decimal at byte {at} has no bytes.")
        value = int.from_bytes(raw, "big", signed=True)
        if abs(value) >= limit:
            raise BadBody(Reason.DECIMAL_OUT_OF_RANGE, f"The decimal at byte {at} has more than {r.precision} digits.")
        return value, end

    return read


def _enum(w: Enum, r: Enum) -> Read:
    words = [s if s in r.symbols else r.default for s in w.symbols]

    def read(body: bytes, at: int) -> tuple[str, int]:
        index, end = _int(body, at)
        word = words[index] if 0 <= index < len(words) else None
        if word is None:
            raise BadBody(Reason.ENUM_OUT_OF_RANGE, f"The enum at byte {at} says {index}; the contract's words are {', '.join(r.symbols)}.")
        return word, end

    return read


def _pair(read_value: Read) -> Read:
    def read(body: bytes, at: int) -> tuple[tuple[str, Any], int]:
        key, at = _string(body, at)
        value, at = read_value(body, at)
        return (key, value), at

    return read


def _blocks(read_item: Read) -> Read:
    """Arrays and maps: blocks of items until a block of none."""

    def read(body: bytes, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while True:
            count, size, at = _block_head(body, at)
            if not count:
                return items, at
            begin = at
            for _ in range(count):
                item, at = read_item(body, at)
                items.append(item)
            _check_block(begin, at, size)

    return read


def _block_head(body: bytes, at: int) -> tuple[int, int | None, int]:
    """How many items follow, how many bytes if that is said (behind a negative count), and where."""
    count, at = read_long(body, at)
    size, at = read_long(body, at) if count < 0 else (None, at)
    if abs(count) > len(body) - at:
        raise BadBody(Reason.TRUNCATED, f"{abs(count)} items should follow at byte {at}, found {len(body) - at} bytes.")
    return abs(count), size, at


def _check_block(begin: int, end: int, size: int | None) -> None:
    if size is not None and end - begin != size:
        raise BadBody(Reason.MALFORMED, f"The block at byte {begin} says {size} bytes, found {end - begin}.")


def _texts(width: int) -> Read:
    """Arrays (width 1) and maps (2) of strings as `_blocks` and `_string` read them, in one loop: random bytes are maps of thousands of
    entries, or thousands of blocks of one."""

    def read(body: bytes, at: int) -> tuple[list[Any], int]:
        length, texts = len(body), list[str]()
        while True:
            head = body[at] if at < length else 1
            if not head & 0x81 and head >> 1 < length - at:
                count, size, at = head >> 1, None, at + 1
            else:
                count, size, at = _block_head(body, at)
            if not count:
                return texts if width == 1 else list(zip(texts[::2], texts[1::2], strict=True)), at
            begin = at
            for _ in range(width * count):
                try:
                    head = body[at]
                    end = at + 1 + (head >> 1)
                    if end <= length and not head & 0x81:
                        texts.append(body[at + 1 : end].decode())
                        at = end
                        continue
                except (IndexError, UnicodeDecodeError):  # said below, with its place
                    pass
                text, at = _string(body, at)
                texts.append(text)
            _check_block(begin, at, size)

    return read
