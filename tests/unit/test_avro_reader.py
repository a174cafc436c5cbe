"""Avro bodies one by one: bytes that lie about themselves are refused before anything is allocated for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2stream.decode.avro_reader import BadBody, reader_of
from k2stream.decode.avro_type import parse
from k2stream.errors import DecodeError
from k2stream.verdict import Reason


def record(*types: Any, **defaults: Any) -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": t} for i, t in enumerate(types)]
    return {"type": "record", "name": "R", "fields": [*fields, *({"name": n, "type": "long", "default": d} for n, d in defaults.items())]}


def read(writer: dict[str, Any], body: bytes, reader: dict[str, Any] | None = None) -> dict[str, Any]:
    return reader_of(parse(writer), parse(reader or writer))(body)


STRINGS = {"type": "array", "items": "string"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 1}
HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 2**63 - 1


@pytest.mark.parametrize(
    ("t", "body", "reason"),
    [
        ("string", HUGE, Reason.TRUNCATED),
        (STRINGS, HUGE, Reason.TRUNCATED),
        ({"type": "map", "values": "string"}, HUGE, Reason.TRUNCATED),
        ("string", b"\x01", Reason.MALFORMED),
        ("string", b"\x02\xff", Reason.INVALID_UTF8),
        ("long", b"\xff" * 9 + b"\x7f", Reason.MALFORMED),
        ("long", b"\xff" * 11, Reason.MALFORMED),
        ("long", b"\x80", Reason.TRUNCATED),
        ("int", b"\x80\x80\x80\x80\x20", Reason.MALFORMED),
        (STRINGS, b"\x01\x7e\x02x\0", Reason.MALFORMED),
        (["null", "long"], b"\x04\x02", Reason.MALFORMED),
        (DECIMAL, b"\x02\x64", Reason.DECIMAL_OUT_OF_RANGE),
        (DECIMAL, b"\0", Reason.MALFORMED),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02", Reason.ENUM_OUT_OF_RANGE),
        ("null", b"\0", Reason.TRAILING_BYTES),
    ],
)
def test_bad_bodies_are_refused_with_their_reason(t: Any, body: bytes, reason: Reason) -> None:
    """Lengths and counts past the body, numbers too wide, words out of range: each has its name."""
    with pytest.raises(BadBody) as refused:
        read(record(t), body)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("t", "body", "value"),
    [
        ("long", b"\xff" * 9 + b"\x01", -(2**63)),
        (DECIMAL, b"\x02\x63", 99),
        (DECIMAL, b"\x04\xff\x9d", -99),
        (STRINGS, b"\x01\x04\x02x\x02\x02y\0", ["x", "y"]),
        ({"type": "map", "values": "string"}, b"\x04\x02a\x02x\x02a\x02y\0", [("a", "x"), ("a", "y")]),
    ],
)
def test_unusual_but_valid_bodies_are_read(t: Any, body: bytes, value: Any) -> None:
    """Blocks with sizes, extremes, padded decimals and a key that stands twice lose nothing."""
    assert read(record(t), body) == {"f0": value}


def test_versions_resolve_as_avro_says() -> None:
    """A promoted number, a dropped field and a default; a field without default is refused, a change of unit too."""
    assert read(record("int", "string"), b"\x02\x02x", record("long", new=7)) == {"f0": 1, "new": 7}
    with pytest.raises(DecodeError, match="no default"):
        read(record("int"), b"", record("int", "string"))
    millis, micros = (record({"type": "long", "logicalType": f"timestamp-{unit}"}) for unit in ("millis", "micros"))
    with pytest.raises(DecodeError, match="timestamp-millis cannot be read as timestamp-micros"):
        read(millis, b"", micros)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": "long"},
        record({"type": "array", "items": "null"}),
        {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]},
        record("duration"),
        {"type": "record"},
        {},
    ],
)
def test_schemas_that_cannot_be_read_safely_are_refused(schema: dict[str, Any]) -> None:
    """Recursion, items of no bytes and things that are no schema make no reader."""
    with pytest.raises(DecodeError):
        parse(schema)


def zigzag(value: int) -> bytes:
    """As Avro writes a number of at most two bytes."""
    left = (value << 1) ^ (value >> 63)
    return bytes([left]) if left < 0x80 else bytes([left & 0x7F | 0x80, left >> 7])


def found_in(t: Any, body: bytes) -> Any:
    """The value of a body of one field, or why there is none."""
    try:
        return read(record(t), body)["f0"]
    except BadBody as exc:
        return exc.reason, str(exc)


A_TEXT = st.one_of(st.text(max_size=3), st.sampled_from(["", "x" * 63, "x" * 64, "é" * 40])).map(str.encode)
A_MAP_ENTRY = st.tuples(A_TEXT, A_TEXT).map(lambda pair: b"".join(zigzag(len(text)) + text for text in pair))
A_MAP_BLOCK = st.lists(A_MAP_ENTRY, min_size=1, max_size=4).flatmap(
    lambda items: st.sampled_from([zigzag(len(items)), zigzag(-len(items)) + zigzag(len(b"".join(items)))]).map(lambda head: head + b"".join(items))
)


@given(blocks=st.lists(A_MAP_BLOCK, max_size=3), rest=st.binary(max_size=6), at=st.integers(0, 60), byte=st.integers(0, 255), is_spoiled=st.booleans())
def test_maps_and_arrays_of_strings_are_read_as_items_of_strings_are(blocks: list[bytes], rest: bytes, at: int, byte: int, is_spoiled: bool) -> None:
    """One loop, and the same values, refusals and places as item by item."""
    body = bytearray(b"".join(blocks) + b"\0")
    if is_spoiled:
        body[at % len(body)] = byte
        body += rest
    pairs = {"type": "array", "items": {"type": "record", "name": "Pair", "fields": [{"name": n, "type": "string"} for n in "kv"]}}
    one, other = found_in({"type": "map", "values": "string"}, bytes(body)), found_in(pairs, bytes(body))
    assert one == ([(pair["k"], pair["v"]) for pair in other] if isinstance(other, list) else other)
    single = {"type": "array", "items": {"type": "record", "name": "Single", "fields": [{"name": "v", "type": "string"}]}}
    one, other = found_in(STRINGS, bytes(body)), found_in(single, bytes(body))
    assert one == ([entry["v"] for entry in other] if isinstance(other, list) else other)
