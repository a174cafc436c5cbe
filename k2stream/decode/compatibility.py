"""Whether a newer Avro schema reads what older ones wrote: Confluent's BACKWARD_TRANSITIVE; pure.

A registry of one machine has nobody else to ask, and a server's refusal does not always say which field it is about.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastavro.schema import expand_schema

from k2stream.errors import RegistryError
from k2stream.rows import AvroSchema

PROMOTIONS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
"""Written type -> types that may read it, besides itself."""


def obstacles(newer: AvroSchema, older: AvroSchema) -> list[str]:
    """What keeps `newer` from reading records of `older`: one clause a field; empty if nothing does."""
    return list(_between(expand_schema(newer), expand_schema(older), newer.get("name", "the schema")))


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject."""

    number: int
    schema_id: int
    schema: AvroSchema


def obstacles_to(newer: AvroSchema, versions: Sequence[Version]) -> list[str]:
    """What keeps `newer` from reading records of any of these versions; each clause once, with the newest version that it is about."""
    found: dict[str, int] = {}
    for version in sorted(versions, key=lambda v: v.number, reverse=True):
        for clause in obstacles(newer, version.schema):
            found.setdefault(clause, version.number)
    return [f"{clause} (version {number})" for clause, number in found.items()]


def require_compatible(subject: str, newer: AvroSchema, versions: Sequence[Version]) -> None:
    """Raises RegistryError naming each field that stands in the way."""
    if found := obstacles_to(newer, versions):
        raise RegistryError(
            f"Subject {subject}: the schema cannot read what earlier versions wrote: {'; '.join(found)}. "
            "Give new fields a default, and leave the types of old ones as they are."
        )


def differences(newer: AvroSchema, older: AvroSchema) -> list[str]:
    """How two schemas differ: one line a field, `+` only in the newer, `-` only in the older, `~` of another type or default."""
    new, old = (_fields(schema) for schema in (newer, older))
    lines = []
    for name in dict.fromkeys((*old, *new)):
        was, now = (described(fields[name]) if name in fields else None for fields in (old, new))
        if was != now:
            lines.append(f"- {name}: {was}" if now is None else f"+ {name}: {now}" if was is None else f"~ {name}: {was} -> {now}")
    return lines


def _fields(schema: AvroSchema) -> dict[str, Any]:
    expanded: Any = expand_schema(schema)
    return {field["name"]: field for field in expanded["fields"]}


def described(field: Any) -> str:
    """A field's type and default, for people."""
    default = f", default {json.dumps(field['default'])}" if "default" in field else ""
    return f"{_text(field['type'])}{default}"


def _text(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(_text(branch) for branch in schema)
    match _kind(schema):
        case "enum":
            return f"enum of {', '.join(schema['symbols'])}"
        case "array":
            return f"array of {_text(schema['items'])}"
        case "map":
            return f"map of {_text(schema['values'])}"
        case "fixed":
            return f"{_name(schema)} of {schema['size']} bytes"
    return _name(schema)


def _between(new: Any, old: Any, path: str) -> Iterator[str]:
    if isinstance(old, list):
        for branch in old:
            yield from _between(new, branch, path)
    elif isinstance(new, list):
        if all(any(_between(branch, old, path)) for branch in new):
            yield f"{path} was {_name(old)}, which none of {', '.join(map(_name, new))} reads"
    elif _kind(new) in _COMPARE and _kind(new) == _kind(old):
        yield from _COMPARE[_kind(new)](new, old, path)
    elif _meaning(new) != _meaning(old) or _kind(new) not in (_kind(old), *PROMOTIONS.get(_kind(old), ())):
        yield f"{path} was {_name(old)} and is {_name(new)} now"


def _records(new: Any, old: Any, path: str) -> Iterator[str]:
    written = {field["name"]: field for field in old["fields"]}
    for field in new["fields"]:
        where = f"{path}.{field['name']}"
        found = next((written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None)
        if found is not None:
            yield from _between(field["type"], found["type"], where)
        elif "default" not in field:
            yield f"{where} is new and has no default"


def _enums(new: Any, old: Any, path: str) -> Iterator[str]:
    lost = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
    if lost and "default" not in new:
        yield f"{path} no longer knows {', '.join(lost)} and has no default"


def _fixed(new: Any, old: Any, path: str) -> Iterator[str]:
    if (new["size"], _meaning(new)) != (old["size"], _meaning(old)):
        yield f"{path} was {_name(old)} of {old['size']} bytes and is {_name(new)} of {new['size']} now"


def _arrays(new: Any, old: Any, path: str) -> Iterator[str]:
    yield from _between(new["items"], old["items"], f"{path}[]")


def _maps(new: Any, old: Any, path: str) -> Iterator[str]:
    yield from _between(new["values"], old["values"], f"{path}{{}}")


_COMPARE = {"record": _records, "enum": _enums, "fixed": _fixed, "array": _arrays, "map": _maps}


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _meaning(schema: Any) -> tuple[Any, ...]:
    """Logical type; bytes that mean another number or time are read without an error, and wrong."""
    if not isinstance(schema, dict):
        return (None,)
    decimal = (schema.get("precision"), schema.get("scale", 0)) if schema.get("logicalType") == "decimal" else ()
    return (schema.get("logicalType"), *decimal)


def _name(schema: Any) -> str:
    logical, *numbers = _meaning(schema)
    if logical is None:
        return _kind(schema)
    return f"{logical}({', '.join(map(str, numbers))})" if numbers else str(logical)
