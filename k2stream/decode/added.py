"""What a writer's schema has beyond the contract: fields with a default, which become columns of their own.

Such a column is null in every row whose writer did not have the field, whenever it was written and whatever default the
newer schema gives: Iceberg v2 reads older files so, and a row must not depend on which of two schemas was met first.
A field without a default is none that was added; Avro's rules leave it out, as ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context
from decimal import Decimal as Number
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from k2stream.decode.avro_type import Array, AvroType, Decimal, Enum, Field, Fixed, Map, Plain, RecordType, nullable
from k2stream.errors import DecodeError
from k2stream.rows import NATIVE_IDS, ORIGIN_FIELDS, TIMESTAMP, wider

KEPT = frozenset({*(f.name for f in ORIGIN_FIELDS), *NATIVE_IDS.values(), "timestamp_day", "commit_id", "written_at", "delisted_at"})
"""Names that the tables use for themselves."""

MOST_DIGITS = 38
EXACT = Context(prec=MOST_DIGITS + 1)

PLAIN: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
LOGICAL: Mapping[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time64("us"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): TIMESTAMP,
    ("long", "timestamp-micros"): TIMESTAMP,
    ("long", "local-timestamp-millis"): pa.timestamp("us"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
}


@dataclass(frozen=True, slots=True)
class Added:
    """One added field: how it was written, and the column it becomes."""

    type: AvroType
    column: pa.Field


def added_fields(written: RecordType, contract: RecordType) -> tuple[Field, ...]:
    """Fields of the writer that the contract has under no name, and that have a default."""
    known = {name for f in contract.fields for name in (f.name, *f.aliases)}
    return tuple(f for f in written.fields if f.has_default and f.name not in known)


def added_columns(written: RecordType, contract: RecordType) -> tuple[Added, ...]:
    """The columns that a writer's schema adds; raises DecodeError naming a field that cannot become one."""
    kept = {name.lower() for name in (*KEPT, *(f.name for f in contract.fields))}
    found = []
    for field in added_fields(written, contract):
        if field.name.lower() in kept:
            raise DecodeError(f"field {field.name}: the tables have a column of that name")
        if (kind := column_type(field.type)) is None:
            raise DecodeError(f"field {field.name}: no column can hold its type ({field.type})")
        found.append(Added(field.type, pa.field(field.name, kind, nullable=True)))
    return tuple(found)


def column_type(t: AvroType) -> pa.DataType | None:
    """The column's type; None for what has none: records, unions of several types, arrays of anything but plain values."""
    match nullable(t) or t:
        case Plain(name, None):
            return PLAIN.get(name)
        case Plain(name, logical):
            return LOGICAL.get((name, logical or ""))
        case Decimal(precision, scale) if 0 <= scale <= precision <= MOST_DIGITS:
            return pa.decimal128(precision, scale)
        case Enum():
            return pa.string()
        case Fixed(size, None):
            return pa.binary(size)
        case Array(Plain(name, None)) if name in PLAIN:
            return pa.list_(pa.field("element", PLAIN[name], nullable=False))
        case Map(Plain(name, None)) if name in PLAIN:
            return pa.map_(pa.string(), pa.field("value", PLAIN[name], nullable=False))
    return None


class KnownColumns:
    """Columns beyond the contract by name: those of the table, and those of the schemas accepted so far."""

    def __init__(self, held: Iterable[pa.Field] = ()) -> None:
        self._types: dict[str, pa.DataType] = {f.name: f.type for f in held}

    def hold(self, held: Iterable[pa.Field]) -> None:
        """The table has these; they stand above what was only accepted."""
        for field in held:
            known = self._types.get(field.name)
            self._types[field.name] = (known and wider(known, field.type)) or field.type

    def admit(self, added: Sequence[Added]) -> None:
        """Accept a schema's columns, all or none; raises DecodeError naming the one that does not fit what is known."""
        names = {name.lower(): name for name in self._types}
        for column in (a.column for a in added):
            known = names.get(column.name.lower(), column.name)
            if known != column.name:
                raise DecodeError(f"field {column.name}: there is a column {known}, and many readers do not tell the two apart")
            if known in self._types and wider(self._types[known], column.type) is None:
                raise DecodeError(f"field {column.name}: it is {column.type}, and the column of that name {self._types[known]}")
            names[column.name.lower()] = column.name
        for column in (a.column for a in added):
            known_type = self._types.get(column.name, column.type)
            self._types[column.name] = wider(known_type, column.type) or column.type


def column_of_values(values: Sequence[Any], added: Added) -> pa.Array:
    """The column of values as the record reader gives them: unscaled decimals, times as integers."""
    inside, kind = nullable(added.type) or added.type, added.column.type
    if isinstance(inside, Decimal):
        return pa.array([None if v is None else Number(v).scaleb(-inside.scale, EXACT) for v in values], kind)
    physical = PLAIN[inside.name] if isinstance(inside, Plain) else kind
    return as_column(pa.array(values, physical), added)


def as_column(column: pa.Array, added: Added) -> pa.Array:
    """The column of plain values; they are in range."""
    inside, kind = nullable(added.type) or added.type, added.column.type
    if isinstance(inside, Plain) and inside.logical is not None:
        if inside.logical.endswith("millis"):
            column = pc.multiply_checked(column.cast(pa.int64()), 1000)
        return column.cast(kind)
    return column if column.type.equals(kind, check_metadata=True) else column.cast(kind)
