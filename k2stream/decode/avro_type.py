"""Avro schemas as values: parsed once per schema id, strict about what k2stream can read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k2stream.errors import DecodeError
from k2stream.rows import AvroSchema

PLAIN = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_MILLIS = (2**63 - 1) // 1000
SPANS: Mapping[str | None, tuple[int, int]] = {
    "time-millis": (0, 86_400_000 - 1),
    "time-micros": (0, 86_400_000_000 - 1),
    "timestamp-millis": (-_MILLIS, _MILLIS),
    "local-timestamp-millis": (-_MILLIS, _MILLIS),
}
"""Smallest and largest value of times that do not fill their type: what a column of microseconds can hold."""
MAX_DEPTH = 32
"""Deeper (or recursive) schemas are refused; the contracts are 3 deep."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A primitive, with the logical type that changes its meaning."""

    name: str
    logical: str | None = None


@dataclass(frozen=True, slots=True)
class Decimal:
    """Bytes that hold a two's complement integer, big-endian."""

    precision: int
    scale: int


@dataclass(frozen=True, slots=True)
class Enum:
    """One of some words."""

    symbols: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """Bytes of one size, with the logical type that changes their meaning."""

    size: int
    logical: str | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of items."""

    items: "AvroType"


@dataclass(frozen=True, slots=True)
class Map:
    """Strings to values."""

    values: "AvroType"


@dataclass(frozen=True, slots=True)
class Union:
    """One of several types."""

    branches: tuple["AvroType", ...]


@dataclass(frozen=True)
class Field:
    """One field of a record."""

    name: str
    type: "AvroType"
    has_default: bool
    default: Any
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordType:
    """Fields in the order of their bytes."""

    fields: tuple[Field, ...]


AvroType = Plain | Decimal | Enum | Fixed | Array | Map | Union | RecordType


def parse(schema: AvroSchema) -> RecordType:
    """A record's schema; raises DecodeError if it is not one, or of a kind that k2stream does not read."""
    try:
        parsed = _parse(schema, {}, "", 0)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise DecodeError(f"Not an Avro schema: {exc!r}") from exc
    if not isinstance(parsed, RecordType):
        raise DecodeError("The schema is not a record's.")
    return parsed


def nullable(t: AvroType) -> AvroType | None:
    """X of a union of null and X; None for any other type."""
    if not isinstance(t, Union) or len(t.branches) != 2 or Plain("null") not in t.branches:
        return None
    return next((b for b in t.branches if b != Plain("null")), None)


def smallest_bytes(t: AvroType) -> int:
    """Fewest bytes that a value takes."""
    match t:
        case Plain(name):
            return {"null": 0, "float": 4, "double": 8}.get(name, 1)
        case Fixed(size):
            return size
        case RecordType(fields):
            return sum(smallest_bytes(f.type) for f in fields)
    return 1


def as_json(t: AvroType, names: Iterator[int]) -> Any:
    """The same bytes as a schema without logical types, whose named types are numbered, so that none is named twice."""
    match t:
        case Plain(name):
            return name
        case Decimal():
            return "bytes"
        case Enum(symbols):
            return {"type": "enum", "name": f"E{next(names)}", "symbols": list(symbols)}
        case Fixed(size):
            return {"type": "fixed", "name": f"F{next(names)}", "size": size}
        case Array(items):
            return {"type": "array", "items": as_json(items, names)}
        case Map(values):
            return {"type": "map", "values": as_json(values, names)}
        case Union(branches):
            return [as_json(b, names) for b in branches]
        case RecordType(fields):
            inner = [{"name": f.name, "type": as_json(f.type, names)} for f in fields]
            return {"type": "record", "name": f"R{next(names)}", "fields": inner}


def _parse(schema: Any, named: dict[str, AvroType], namespace: str, depth: int) -> AvroType:
    if depth > MAX_DEPTH:
        raise DecodeError(f"The schema nests deeper than {MAX_DEPTH}.")
    if isinstance(schema, list):
        branches = tuple(_parse(b, named, namespace, depth + 1) for b in schema)
        if any(isinstance(branch, Union) for branch in branches):
            raise DecodeError("The schema has a union that is a branch of a union, which Avro does not allow.")
        return Union(branches)
    if isinstance(schema, str):
        return Plain(schema) if schema in PLAIN else _by_name(schema, named, namespace)
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return _parse(kind, named, namespace, depth + 1)
    if kind in PLAIN:
        return _primitive(kind, schema)
    if kind == "array":
        return _items(Array(_parse(schema["items"], named, namespace, depth + 1)))
    if kind == "map":
        return Map(_parse(schema["values"], named, namespace, depth + 1))
    if kind in ("enum", "fixed", "record"):
        return _named(kind, schema, named, namespace, depth)
    return _by_name(kind, named, namespace)


def _by_name(name: str, named: Mapping[str, AvroType], namespace: str) -> AvroType:
    full = name if "." in name else f"{namespace}.{name}".lstrip(".")
    if full not in named:
        raise DecodeError(f"The schema names a type {name!r} that it does not define before (recursive types are not read).")
    return named[full]


def _primitive(kind: str, schema: Mapping[str, Any]) -> AvroType:
    logical = schema.get("logicalType")
    if logical == "decimal" and kind == "bytes":
        return Decimal(int(schema["precision"]), int(schema.get("scale", 0)))
    is_time = kind in ("int", "long") and isinstance(logical, str) and logical.startswith(("time", "date", "local"))
    return Plain(kind, logical if is_time else None)  # Avro: a logical type that does not fit its type is ignored


def _items(array: Array) -> Array:
    """Items of no bytes would let a few bytes claim any number of them."""
    if smallest_bytes(array.items) == 0:
        raise DecodeError("The schema has an array of items that take no bytes.")
    return array


def _named(kind: str, schema: Mapping[str, Any], named: dict[str, AvroType], namespace: str, depth: int) -> AvroType:
    name: str = schema["name"]
    if "." not in name:
        name = f"{schema.get('namespace', namespace)}.{name}".lstrip(".")
    inner = name.rpartition(".")[0]
    made: AvroType
    if kind == "enum":
        made = Enum(tuple(schema["symbols"]), schema.get("default"))
    elif kind == "fixed":
        made = Fixed(int(schema["size"]), schema.get("logicalType"))
    else:
        made = RecordType(tuple(_field(f, named, inner, depth) for f in schema["fields"]))
    named[name] = made
    return made


def _field(field: Mapping[str, Any], named: dict[str, AvroType], namespace: str, depth: int) -> Field:
    t = _parse(field["type"], named, namespace, depth + 1)
    return Field(field["name"], t, "default" in field, field.get("default"), tuple(field.get("aliases", ())))
