"""How a table gains a column: in the commit that brings its first rows, or not at all.

A window whose rows have columns that the table lacks is written with the field ids that the table would give them now. The commit
adds the columns and the files in one request, which requires that schema and head are still those. Another worker that adds the
same column at the same moment gives it the same id, so whoever is later finds it there and only appends. If the ids
came out differently, the rows are written again under the new ones (`ColumnsMoved`); if a column has got a type that cannot hold
them, the window is dropped and its records are read again: then they are dead letters (`Fenced`).

New columns are optional, and null in every older row and file: Iceberg v2 has no other default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.exceptions import ResolveError, ValidationError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata

from k2stream.errors import Fenced, LakeError
from k2stream.lake.head import name_of
from k2stream.rows import wider


class ColumnsMoved(LakeError):
    """The table gives new columns other field ids than the window's files have; caught by the lake, never seen outside."""


@dataclass(frozen=True, slots=True)
class Evolution:
    """A table's schema with columns that some rows have, and how it gets there."""

    schema: Schema
    updates: tuple[TableUpdate, ...] = ()
    """Empty if the table has the columns already, as wide as they are needed."""
    requirements: tuple[TableRequirement, ...] = ()


def more_columns(rows: pa.Schema, declared: pa.Schema) -> tuple[pa.Field, ...]:
    """Columns of rows that the declaration has not, plain and optional."""
    return tuple(pa.field(f.name, f.type, nullable=True) for f in rows if f.name not in declared.names)


def evolution_of(table: Table, columns: Sequence[pa.Field]) -> Evolution:
    """What `table` needs to hold these columns. Raises Fenced, naming it, if one of them is there with a type that cannot hold them."""
    if not columns or _holds(table, columns):
        return Evolution(table.schema())
    update = Transaction(table).update_schema()
    try:
        update.union_by_name(pa.schema(columns))
        updates, requirements = update._commit()  # noqa: SLF001 - `commit()` would go to the catalog
        schema = update._apply()  # noqa: SLF001 - the schema that the update is about
    except (ResolveError, ValidationError, ValueError) as exc:
        raise Fenced(f"{name_of(table)} cannot take the columns {', '.join(c.name for c in columns)}: {exc} Their records are read again.") from exc
    return Evolution(schema if updates else table.schema(), updates, requirements)


def _holds(table: Table, columns: Sequence[pa.Field]) -> bool:
    """Whether the table has the columns already, as wide as they are needed. PyIceberg would let decimals of another scale pass."""
    held = {f.name: f.type for f in arrow_columns(table.schema())}
    for column in columns:
        if column.name in held and wider(held[column.name], column.type) is None:
            raise Fenced(f"{name_of(table)}: column {column.name} is {held[column.name]} and cannot take {column.type}. The records are read again.")
    return all(c.name in held and wider(held[c.name], c.type) == held[c.name] for c in columns)


def evolved(table: Table, evolution: Evolution) -> Table:
    """The table as it will be; nothing is written."""
    if not evolution.updates:
        return table
    return Table(table.name(), update_table_metadata(table.metadata, evolution.updates), table.metadata_location, table.io, table.catalog, table.config)


def require_same_ids(table: Table, columns: Sequence[pa.Field], written: Schema) -> None:
    """Raises ColumnsMoved if `table` would now give the columns other ids than the files were written with."""
    now = evolution_of(table, columns).schema if columns else written
    for column in columns:
        if _ids(now, column.name) != _ids(written, column.name):
            raise ColumnsMoved(f"{name_of(table)} has another column in the place of {column.name}.")


def _ids(schema: Schema, name: str) -> list[int]:
    field = schema.find_field(name)
    return [field.field_id, *Schema(field).field_ids]


def arrow_columns(schema: Schema) -> pa.Schema:
    """A table's columns as Arrow has them, strings and lists in their usual size, with their field ids."""
    return pa.schema(f.with_type(_usual(f.type)) for f in schema_to_pyarrow(schema))


def _usual(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_usual(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field.with_type(_usual(kind.key_type)), kind.item_field.with_type(_usual(kind.item_type)))
    return kind
