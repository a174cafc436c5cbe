"""Chunks of a file -> rows of a contract, and the rows that cannot be: each with its line, a reason and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.errors import LoadError
from k2stream.load.chunk import Chunk
from k2stream.load.fields import UNREADABLE, Field, maps, read_field
from k2stream.load.mapping import DEFAULTS, ID_FIELDS, FieldMapping, Kind, Source, kind_of, mappable, words_of
from k2stream.rows import TIMESTAMP, body_schema
from k2stream.topics import TopicName
from k2stream.validate import Limits, validate
from k2stream.verdict import Reason

FOUND_CHARACTERS = 80
"""So much of a wrong value is quoted."""

REASONS = {"symbol": Reason.SYMBOL_REQUIRED, "trade_id": Reason.TRADE_ID_REQUIRED, "side": Reason.INVALID_SIDE}
"""Field -> why a row without it, or with a wrong one, is refused; all others are malformed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go, and what is the same of all rows of one run."""

    topic: TopicName
    fingerprint: str
    """Of the file's content, 32 hexadecimal digits: ids that the file lacks are made of it."""
    now_us: int
    limits: Limits

    @property
    def exchange(self) -> str:
        """As rows carry it."""
        return self.topic.venue.upper()


@dataclass(frozen=True, slots=True)
class Refused:
    """One row of the file that becomes no record."""

    number: int
    """Its place in the chunk."""
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Converted:
    """A chunk as rows, and what could not be rows."""

    rows: pa.Table
    """Columns of the contract, in the file's order."""
    refused: tuple[Refused, ...]


def require_columns(mapping: FieldMapping, names: Sequence[str], where: str) -> None:
    """Raises LoadError naming a column that a mapping reads and the file lacks, or has twice."""
    for column in mapping.columns:
        if names.count(column) != 1:
            found = f"{column} {names.count(column)} times in " if column in names else ""
            raise LoadError(
                f"{where}: expected the column {column}, which the mapping reads, found {found}{', '.join(names) or 'no column at all'}. "
                "Correct the mapping, or `file: {header: no, columns: [...]}` if the first line is no header."
            )


def convert(chunk: Chunk, mapping: FieldMapping, target: Target) -> Converted:
    """Every row of a chunk, as a row of the contract or refused. Raises LoadError where a whole column cannot be what it is mapped to."""
    columns, count = chunk.columns, chunk.columns.num_rows
    fields = {name: _read(name, mapping, columns) for name in mappable(mapping.data_type)}
    extra = {name: read_field(name, source, Kind.TEXT, columns, empty=mapping.form.empty) for name, source in mapping.vendor_data.items()}
    numbers = chunk.first_row + chunk.numbers + 1
    _make_ids(fields, mapping, target, numbers)
    refused, bad = _refusals(chunk, mapping, {**fields, **{f"vendor_data.{n}": f for n, f in extra.items()}})
    made = {
        "message_id": _message_ids(target.fingerprint, numbers),
        "exchange": _constant(target.exchange, count),
        "asset_class": _constant(target.topic.asset_class, count),
        "ingestion_timestamp": pa.repeat(pa.scalar(target.now_us, TIMESTAMP), count),
        "platform_sequence": pa.nulls(count, pa.int64()),
        "vendor_data": maps({n: f.values for n, f in extra.items()}, count),
    }
    own = {**{name: f.values for name, f in fields.items()}, **made}
    rows = pa.table({name: own[name] for name in body_schema(mapping.schema).names})
    kept = chunk.numbers[~bad]
    return _validated(rows.filter(pa.array(~bad)), kept, [*_malformed(chunk), *refused], mapping, target)


def _read(name: str, mapping: FieldMapping, columns: pa.Table) -> Field:
    kind = kind_of(mapping.data_type, name)
    source = mapping.fields.get(name)
    if source is None:
        source = Source(constant=DEFAULTS.get(name, ""))
    return read_field(name, source, kind, columns, words=words_of(mapping.data_type, name), empty=mapping.form.empty)


def _make_ids(fields: dict[str, Field], mapping: FieldMapping, target: Target, numbers: NDArray[np.int64]) -> None:
    """Ids as the contract writes them: the exchange, a hyphen and the venue's id, or one made of the file's content and the row's number."""
    name = ID_FIELDS[mapping.data_type]
    if name is None:
        return
    own, prefix = fields[name], f"{target.exchange}-"
    if mapping.has_ids:
        texts = own.values.dictionary_decode() if pa.types.is_dictionary(own.values.type) else own.values
        ids = pc.if_else(pc.starts_with(texts, prefix), texts, pc.binary_join_element_wise(prefix, texts, ""))
    else:
        ids = pc.binary_join_element_wise(f"{prefix}{target.fingerprint[:16]}-", pa.array(numbers).cast(pa.string()), "")
    fields[name] = Field(ids, own.bad, own.wanted, own.found, own.unreadable)


def _refusals(chunk: Chunk, mapping: FieldMapping, fields: dict[str, Field]) -> tuple[list[Refused], NDArray[np.bool_]]:
    """Rows with a field that cannot be read, or that lacks a value it needs; the first such field is the reason."""
    schema = body_schema(mapping.schema)
    bad = np.zeros(chunk.columns.num_rows, bool)
    refused: list[Refused] = []
    for name, field in fields.items():
        needed = name in schema.names and not schema.field(name).nullable
        own = (field.bad | field.missing() if needed else field.bad) & ~bad
        refused += [_refusal(chunk, name, field, int(row)) for row in np.flatnonzero(own)]
        bad |= own
    return refused, bad


def _refusal(chunk: Chunk, name: str, field: Field, row: int) -> Refused:
    number = int(chunk.numbers[row])
    if len(field.unreadable) and field.unreadable[row]:
        return Refused(number, Reason.INVALID_UTF8, f"{name}: {UNREADABLE}")
    found = field.found[row].as_py()
    said = "nothing" if found is None else repr(found[:FOUND_CHARACTERS])
    return Refused(number, REASONS.get(name, Reason.MALFORMED), f"{name}: expected {field.wanted}, found {said}")


def _malformed(chunk: Chunk) -> list[Refused]:
    return [Refused(row.number, Reason.MALFORMED, row.text) for row in chunk.malformed]


def _validated(rows: pa.Table, numbers: NDArray[np.int64], refused: list[Refused], mapping: FieldMapping, target: Target) -> Converted:
    """The rules that workers hold rows to are held here already: a letter from here names the line."""
    if ID_FIELDS[mapping.data_type] and rows.num_rows:
        checked = rows.append_column("offset", pa.array(numbers))
        topic = target.topic
        invalid = validate(checked, exchange=topic.venue, asset_class=topic.asset_class, now_us=target.now_us, limits=target.limits)
        if invalid:
            refused += [Refused(i.offset, i.reason, i.text) for i in invalid]
            kept = np.ones(rows.num_rows, bool)
            kept[[i.row for i in invalid]] = False
            rows = rows.filter(pa.array(kept))
    return Converted(rows, tuple(sorted(refused, key=lambda r: r.number)))


def _message_ids(fingerprint: str, numbers: NDArray[np.int64]) -> pa.Array:
    """The same at every run, so that a record that is published twice is so byte for byte but for its times."""
    prefix = str(UUID(hex=fingerprint, version=4))[:-12]
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 12, "0"), "")


def _constant(word: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([word]))
