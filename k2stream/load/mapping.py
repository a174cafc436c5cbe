"""How the columns of a file become the fields of a contract: a YAML file, read and checked before a row is; pure but for the reading.

    file:                            # of CSV only, each has a default
      header: no                     # then `columns` names them in order
      columns: [date, time, price, volume]
    fields:
      price: price                   # short for {column: price}
      quantity: {column: volume, decimal: ","}
      timestamp: {columns: [date, time], format: "%m/%d/%Y %H:%M:%S.%f", timezone: Australia/Sydney}
      currency: {constant: AUD}
      side: {column: flag, values: {b: BUY, s: SELL}}
    vendor_data:
      venue: venue                   # what the contract has no field for

What the loader makes itself is not mapped: message_id, exchange, asset_class, ingestion_timestamp, platform_sequence.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import strictyaml
import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from k2stream.errors import LoadError
from k2stream.load.times import directives_unknown
from k2stream.rows import avro_schema, body_schema
from k2stream.topics import KINDS

MADE = ("message_id", "exchange", "asset_class", "ingestion_timestamp", "platform_sequence", "vendor_data")
"""Fields that no mapping gives."""
ID_FIELDS = {"trades": "trade_id", "quotes": "quote_id", "reference_data": None}
"""Data type -> the field that dedup goes by."""
DEFAULTS: Mapping[str, str] = {"side": "UNKNOWN", "trade_conditions": "", "is_active": "true"}
"""What a required field is taken for if a mapping leaves it out."""

Unit = Literal["s", "ms", "us", "ns"]


class Kind(StrEnum):
    """What a field holds, and so which conversions it knows."""

    DECIMAL = "decimal"
    TIME = "time"
    WHOLE = "whole number"
    WORD = "enum"
    FLAG = "true or false"
    LIST = "list"
    TEXT = "text"


OPTIONS: Mapping[Kind, frozenset[str]] = {
    Kind.DECIMAL: frozenset({"decimal", "thousands", "double"}),
    Kind.TIME: frozenset({"columns", "format", "unit", "timezone"}),
    Kind.WHOLE: frozenset({"thousands"}),
    Kind.WORD: frozenset({"values", "otherwise"}),
    Kind.FLAG: frozenset({"values", "otherwise"}),
    Kind.LIST: frozenset({"separator"}),
    Kind.TEXT: frozenset({"values", "otherwise", "columns"}),
}


class Source(BaseModel):
    """Where a field comes from and how it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str | None = None
    columns: tuple[str, ...] = ()
    """Several, put together with a space between."""
    constant: str | None = None
    decimal: Literal[".", ","] = "."
    """What stands before the decimals."""
    thousands: Literal["", ".", ",", " ", "'", "_"] = ""
    double: Literal["refuse", "shortest"] = "refuse"
    """A Parquet column of doubles: `shortest` takes the shortest decimal number that reads back as the same double."""
    format: str = ""
    """Of a time, as for strptime; ISO 8601 without."""
    unit: Unit | None = None
    """Of a time that is counted since 1970."""
    timezone: str = ""
    """Of times that name none, as in Australia/Sydney."""
    values: Mapping[str, str] = {}
    """What the file says -> what the contract says."""
    otherwise: str | None = None
    """What anything else stands for; without it, it is rejected."""
    separator: str = ""
    """Between the entries of a list."""

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            return name if not name else ZoneInfo(name).key
        except (KeyError, ValueError, OSError) as exc:
            raise ValueError("Expected a zone of the tz database, as in Australia/Sydney or UTC") from exc

    @field_validator("format")
    @classmethod
    def _is_format(cls, text: str) -> str:
        if unknown := directives_unknown(text):
            raise ValueError(f"Expected %Y %y %m %d %b %H %I %p %M %S %f %z, which leaves out {' '.join(unknown)}")
        return text

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns it needs."""
        return self.columns or ((self.column,) if self.column is not None else ())


class FileForm(BaseModel):
    """How a CSV file is written; RFC 4180 without a word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str = ","
    quote: str = '"'
    """Empty: quotes are characters like others."""
    header: bool = True
    columns: tuple[str, ...] = ()
    """Names in order, where there is no header."""
    skip_lines: int = 0
    """Lines before the header, or before the first row."""
    encoding: str = "utf-8"
    empty: tuple[str, ...] = ("",)
    """What stands for nothing."""

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_one(cls, text: str) -> str:
        text = {"tab": "\t", "\\t": "\t", "none": "", "no": ""}.get(text, text)
        if len(text.encode()) > 1:
            raise ValueError("Expected one character, or the word tab")
        return text

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, name: str) -> str:
        try:
            ends = "\n".encode(name)
        except (LookupError, UnicodeError) as exc:
            raise ValueError("Expected an encoding, as in utf-8 or cp1252") from exc
        if ends != b"\n":
            raise ValueError("Expected an encoding whose line ends are single bytes; convert the file to utf-8 first")
        return name


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file: FileForm = FileForm()
    fields: dict[str, Source]
    vendor_data: dict[str, Source] = {}


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A mapping that fits its contract."""

    data_type: str
    form: FileForm
    fields: Mapping[str, Source]
    vendor_data: Mapping[str, Source]

    @property
    def schema(self) -> str:
        """Name of the contract."""
        return KINDS[self.data_type].schema

    @property
    def has_ids(self) -> bool:
        """True if the file brings ids of its own; else they are made of its content and the row's number."""
        return ID_FIELDS[self.data_type] in self.fields

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, once."""
        return tuple(dict.fromkeys(c for source in (*self.fields.values(), *self.vendor_data.values()) for c in source.reads))

    def digest(self) -> str:
        """Equal for mappings that make the same of a row."""
        parts = [self.data_type, self.form.model_dump_json()]
        parts += [f"{n}={s.model_dump_json()}" for group in (self.fields, self.vendor_data) for n, s in sorted(group.items())]
        return xxhash.xxh3_64_hexdigest("\n".join(parts).encode())

    def with_constants(self, constants: Mapping[str, str]) -> "FieldMapping":
        """Fields set from outside, over what the file says; raises LoadError naming one that cannot be."""
        sources = dict(self.fields)
        for name, value in constants.items():
            _require_field("--set", self.data_type, name)
            sources[name] = Source(constant=value)
        return replace(self, fields=sources)

    def require_complete(self, where: str) -> None:
        """Raises LoadError naming a field that must be mapped and is not."""
        missing = [n for n in required(self.data_type) if n not in self.fields]
        if missing:
            raise LoadError(f"{where}: {', '.join(missing)} of {self.data_type} is not mapped. Write {missing[0]}: COLUMN under fields, or give it by --set.")


def read_mapping(path: Path, data_type: str, *, constants: Mapping[str, str]) -> FieldMapping:
    """The mapping in `path`, `constants` over it; raises LoadError naming the file, the key, what was expected and what was found."""
    try:
        data: Any = strictyaml.dirty_load(path.read_text(encoding="utf-8"), label=str(path), allow_flow_style=True).data
    except OSError as exc:
        raise LoadError(f"{path} cannot be read ({exc.strerror}). Name a mapping by --mapping; `k2 load ... --print-mapping` drafts one.") from exc
    except (strictyaml.YAMLError, UnicodeDecodeError) as exc:
        raise LoadError(f"{path} is not YAML as expected: {' '.join(str(exc).split())}") from exc
    mapping = _checked(str(path), _parsed(str(path), data), data_type).with_constants(constants)
    mapping.require_complete(str(path))
    return mapping


def kind_of(data_type: str, field: str) -> Kind:
    """What a field of the contract holds."""
    arrow = body_schema(KINDS[data_type].schema).field(field).type
    if pa.types.is_decimal(arrow):
        return Kind.DECIMAL
    if pa.types.is_timestamp(arrow):
        return Kind.TIME
    if pa.types.is_integer(arrow):
        return Kind.WHOLE
    if pa.types.is_boolean(arrow):
        return Kind.FLAG
    if pa.types.is_list(arrow):
        return Kind.LIST
    return Kind.WORD if words_of(data_type, field) else Kind.TEXT


def words_of(data_type: str, field: str) -> list[str]:
    """The words that an enum of the contract knows; none if it is no enum."""
    types = {f["name"]: f["type"] for f in avro_schema(KINDS[data_type].schema)["fields"]}
    kind = types[field]
    return list(kind.get("symbols", [])) if isinstance(kind, dict) else []


def mappable(data_type: str) -> list[str]:
    """The fields that a mapping may give, in the contract's order."""
    return [name for name in body_schema(KINDS[data_type].schema).names if name not in MADE]


def required(data_type: str) -> list[str]:
    """The fields that a mapping must give."""
    schema = body_schema(KINDS[data_type].schema)
    return [n for n in mappable(data_type) if not schema.field(n).nullable and n not in DEFAULTS and n != ID_FIELDS[data_type]]


def _parsed(where: str, data: Any) -> _File:
    if isinstance(data, dict):
        for group in ("fields", "vendor_data"):
            if isinstance(data.get(group), dict):
                data[group] = {name: {"column": source} if isinstance(source, str) else source for name, source in data[group].items()}
    try:
        return _File.model_validate(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise LoadError(f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}, found {first['input']!r}.") from exc


def _checked(where: str, file: _File, data_type: str) -> FieldMapping:
    for name, source in file.fields.items():
        _require_field(f"{where}: fields", data_type, name)
        _require_source(f"{where}: fields.{name}", source, kind_of(data_type, name))
        _require_words(f"{where}: fields.{name}", source, words_of(data_type, name))
    for name, source in file.vendor_data.items():
        _require_source(f"{where}: vendor_data.{name}", source, Kind.TEXT)
    if not file.file.header and not file.file.columns:
        raise LoadError(f"{where}: file.columns: expected the names of the columns in order, for file.header says that the file names none.")
    return FieldMapping(data_type, file.file, file.fields, file.vendor_data)


def _require_field(where: str, data_type: str, name: str) -> None:
    known = mappable(data_type)
    if name in known:
        return
    if name in MADE:
        reason = "has a section of its own" if name == "vendor_data" else "is made by k2 load, or given as an option of it"
        raise LoadError(f"{where}: {name} {reason}. Leave it out.")
    raise LoadError(f"{where}: expected a field of {data_type} ({', '.join(known)}), found {name}.{_meant(name, known)}")


def _require_source(where: str, source: Source, kind: Kind) -> None:
    given = source.model_fields_set
    if sum(name in given for name in ("column", "columns", "constant")) != 1:
        raise LoadError(f"{where}: expected one of column, columns and constant, found {', '.join(sorted(given)) or 'nothing'}.")
    if extra := sorted(given - OPTIONS[kind] - {"column", "constant"}):
        may = ", ".join(sorted(OPTIONS[kind]))
        raise LoadError(f"{where}: {', '.join(extra)} says nothing of a {kind} field; it may have {may}.")
    if source.format and source.unit:
        raise LoadError(f"{where}: expected format or unit, found both. A unit is of times that are counted since 1970.")
    if source.decimal == source.thousands:
        raise LoadError(f"{where}: {source.decimal!r} cannot stand before the decimals and between thousands.")


def _require_words(where: str, source: Source, words: list[str]) -> None:
    said = {*source.values.values(), *([source.otherwise] if source.otherwise is not None else [])}
    if words and (unknown := sorted(said - set(words))):
        raise LoadError(f"{where}: expected one of {', '.join(words)}, found {', '.join(unknown)}.")


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
