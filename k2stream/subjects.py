"""Subjects of the registry: their versions, whether a schema may be the next one, and how schemas differ.

A next version must be readable by every reader there is: it reads what all earlier versions wrote (BACKWARD_TRANSITIVE), the
contract reads what it writes, and the table can take the columns that it adds. Registry, contract and table meet here.
"""

import json
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from k2stream.decode.added import KEPT, KnownColumns, added_columns
from k2stream.decode.avro_reader import reader_of
from k2stream.decode.avro_type import parse
from k2stream.decode.compatibility import obstacles_to
from k2stream.decode.registry import Registry
from k2stream.decode.v1 import conversion_of
from k2stream.errors import DecodeError, LakeError, RegistryError
from k2stream.lake.catalog import open_catalog
from k2stream.lake.reader import TableReader
from k2stream.rows import SCHEMA_OF_DATA_TYPE, AvroSchema, avro_schema, table_schema
from k2stream.settings import Settings

SUFFIX = "-value"
TABLE_OF_DATA_TYPE = {"trades": "trades", "quotes": "quotes", "reference_data": "instruments"}
"""Data type -> the table that its rows go to."""


def schema_in(path: Path) -> AvroSchema:
    """The schema of a file; raises RegistryError if there is none."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise RegistryError(f"{path}: expected the JSON of an Avro schema: {exc}") from exc
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise RegistryError(f"{path}: expected an Avro record, found {str(schema)[:60]}.")
    found: AvroSchema = schema
    return found


def data_type_of(subject: str) -> str:
    """The data type of `market.{asset_class}.{data_type}-value`; raises RegistryError for another subject."""
    parts = subject.removesuffix(SUFFIX).split(".")
    if not subject.endswith(SUFFIX) or len(parts) != 3 or parts[0] != "market" or parts[2] not in SCHEMA_OF_DATA_TYPE:
        raise RegistryError(f"{subject}: expected a subject market.{{asset_class}}.{{{' or '.join(SCHEMA_OF_DATA_TYPE)}}}{SUFFIX}.")
    return parts[2]


def contract_of(subject: str) -> AvroSchema:
    """The schema that k2stream ships for a subject's records."""
    return avro_schema(SCHEMA_OF_DATA_TYPE[data_type_of(subject)])


def columns_of(settings: Settings, subject: str) -> pa.Schema | None:
    """Columns of the table that a subject's rows go to; None if there is no table yet. Raises LakeError if the catalog does not answer."""
    catalog, table = open_catalog(settings), TABLE_OF_DATA_TYPE[data_type_of(subject)]
    with closing(TableReader(catalog, settings, table)) as reader:
        return reader.columns() if catalog.table_exists(reader.name) else None


def objections(registry: Registry, subject: str, schema: AvroSchema, columns: pa.Schema | None) -> list[str]:
    """Why a schema must not be the next version of a subject, each naming its field; empty if it may. Raises RegistryError, registering nothing."""
    versions = registry.versions(subject)
    if any(version.schema == schema for version in versions):
        return []
    found = [*obstacles_to(schema, versions), *_contract_objections(subject, schema, columns)]
    return found or registry.refusals(subject, schema)


def _contract_objections(subject: str, schema: AvroSchema, columns: pa.Schema | None) -> list[str]:
    name = SCHEMA_OF_DATA_TYPE[data_type_of(subject)]
    if conversion_of(schema, name) is not None:
        return []
    own = table_schema(name).names
    try:
        contract, written = parse(avro_schema(name)), parse(schema)
        reader_of(written, contract)
        KnownColumns(f for f in columns or () if f.name not in own).admit(added_columns(written, contract))
    except DecodeError as exc:
        return [f"workers could not read its records as {name}: {exc}"]
    return []


def register(settings: Settings, registry: Registry, subject: str, schema: AvroSchema) -> int:
    """The schema's id under a subject. Raises RegistryError naming each field that stands in the way, LakeError without a catalog."""
    if found := objections(registry, subject, schema, columns_of(settings, subject)):
        raise RegistryError(f"Subject {subject}: the schema was not registered: {'; '.join(found)}.")
    return registry.register(subject, schema)


def version_of(registry: Registry, subject: str, number: int | None) -> AvroSchema:
    """A version's schema, the newest without a number; raises RegistryError if there is none."""
    versions = registry.versions(subject)
    found = next((v for v in reversed(versions) if number in (None, v.number)), None)
    if found is None:
        have = ", ".join(str(v.number) for v in versions) or "none"
        raise RegistryError(f"Subject {subject} has no version {number or ''}".rstrip() + f"; its versions: {have}.")
    return found.schema


def differences_from_table(schema: AvroSchema, subject: str, columns: pa.Schema | None) -> list[str]:
    """What a schema's fields and a table's columns have that the other has not; raises DecodeError for a type without a column."""
    if columns is None:
        raise LakeError(f"There is no table {TABLE_OF_DATA_TYPE[data_type_of(subject)]} yet: the first worker makes it.")
    name = SCHEMA_OF_DATA_TYPE[data_type_of(subject)]
    contract = table_schema(name)
    wanted = {f.name: f.type for f in contract} | {a.column.name: a.column.type for a in added_columns(parse(schema), parse(avro_schema(name)))}
    held = {f.name: f.type for f in columns if f.name in wanted or f.name not in KEPT}
    lines = [f"+ {name}: {kind}, comes with the first row that has it" for name, kind in wanted.items() if name not in held]
    lines += [f"- {name}: {kind}, null in rows of this version" for name, kind in held.items() if name not in wanted]
    return lines + [f"~ {n}: column {held[n]}, written {kind}" for n, kind in wanted.items() if n in held and not held[n].equals(kind)]
