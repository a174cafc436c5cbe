"""Records one by one: what each becomes, or why it cannot become a row. The slow path, and the one that decides."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from k2stream.decode.added import Added, KnownColumns, added_columns
from k2stream.decode.avro_reader import BadBody, reader_of
from k2stream.decode.avro_type import Field, RecordType, parse
from k2stream.decode.framing import FRAME_BYTES, SchemaSource, read_frame
from k2stream.decode.v1 import RECORD_TIME, Conversion, conversion_of
from k2stream.errors import DecodeError
from k2stream.records import Record
from k2stream.rows import avro_schema
from k2stream.verdict import Marker, Reason, Reject, reject

Row = dict[str, Any]
"""One decoded record: the contract's fields, values as decode.columns takes them."""

MARKER, SESSION, TIME_US = "k2-marker", "k2-session", "k2-time-us"
KINDS = frozenset({"session_start", "reconnect"})


class WriterSchema:
    """One schema id of the registry, resolved to the contract and to the columns that it adds, or to what is turned into the contract."""

    def __init__(
        self, schema_id: int, written: RecordType, read: Callable[[bytes], Row], added: tuple[Added, ...] = (), conversion: Conversion | None = None
    ) -> None:
        self.schema_id, self.written, self.read, self.added, self.conversion = schema_id, written, read, added, conversion


class Unreadable(NamedTuple):
    """Why records of a schema id cannot be read."""

    reason: Reason
    text: str


class WriterSchemas:
    """Schema ids met so far, each parsed and resolved once."""

    def __init__(self, contract: str, source: SchemaSource) -> None:
        self.contract = parse(avro_schema(contract))
        self._name, self._source = contract, source
        self._known: dict[int, WriterSchema | Unreadable] = {}
        self._columns = KnownColumns()

    def hold(self, columns: Iterable[pa.Field]) -> None:
        """The table has these columns beyond the contract now: schemas are resolved anew."""
        self._columns.hold(columns)
        self._known.clear()

    def find(self, schema_id: int) -> WriterSchema | Unreadable:
        """The schema, or why its records cannot be read; raises RegistryUnavailable."""
        if schema_id not in self._known:
            schema = self._source.schema(schema_id)
            if schema is None:
                return Unreadable(Reason.UNKNOWN_SCHEMA, f"The registry has no schema {schema_id}; register it and replay the letter.")
            self._known[schema_id] = self._resolve(schema_id, schema)
        return self._known[schema_id]

    def _resolve(self, schema_id: int, schema: Any) -> WriterSchema | Unreadable:
        try:
            written = parse(schema)
            if (conversion := conversion_of(schema, self._name)) is not None:
                return WriterSchema(schema_id, written, conversion.checked(reader_of(written, conversion.contract)), conversion=conversion)
            added = added_columns(written, self.contract)
            mine = tuple(Field(a.column.name, a.type, has_default=True, default=None) for a in added)
            read = reader_of(written, RecordType((*self.contract.fields, *mine)))
            self._columns.admit(added)
        except DecodeError as exc:
            return Unreadable(Reason.SCHEMA_INCOMPATIBLE, f"Schema {schema_id} cannot be read as {self._name}: {exc}.")
        return WriterSchema(schema_id, written, read, added)


class RecordDecoder:
    """Decodes single records of one contract."""

    def __init__(self, schemas: WriterSchemas) -> None:
        self._schemas = schemas

    def decode(self, record: Record) -> Row | Marker | Reject:
        """What a record becomes; raises RegistryUnavailable, nothing else."""
        if record.value is None:
            return without_value(record)
        framed = read_frame(record.value)
        if framed.reason is not None or framed.schema_id is None:
            return reject(record, framed.reason or Reason.MALFORMED, framed.text, None)
        schema = self._schemas.find(framed.schema_id)
        if isinstance(schema, Unreadable):
            return reject(record, schema.reason, schema.text, framed.schema_id)
        try:
            row = schema.read(record.value[FRAME_BYTES:])
        except BadBody as exc:
            return reject(record, exc.reason, str(exc), framed.schema_id)
        return row if schema.conversion is None else {**row, RECORD_TIME: record.timestamp_us}


def without_value(record: Record) -> Marker | Reject:
    """What a record with a null value is: a marker by its headers, else a dead letter."""
    headers = dict(record.headers)
    if MARKER not in headers:
        return reject(record, Reason.NO_VALUE, "The record has no value and is no marker.", None)
    try:
        return _marker(record, headers)
    except (ValueError, KeyError) as exc:
        text = f"A marker has a symbol as key and headers {MARKER} ({' or '.join(sorted(KINDS))}), {SESSION} and {TIME_US}: {exc!r}."
        return reject(record, Reason.BAD_MARKER, text, None)


def _marker(record: Record, headers: dict[str, bytes]) -> Marker:
    kind, symbol = headers[MARKER].decode(), (record.key or b"").decode()
    session, time_us = headers[SESSION].decode(), int(headers[TIME_US].decode("ascii"))
    if kind not in KINDS or not symbol or (kind == "session_start" and not session):  # a reconnect is known by its time, live feeds have no sessions
        raise ValueError(f"kind {kind!r}, symbol {symbol!r}, session {session!r}")
    if not -(2**63) <= time_us < 2**63:
        raise ValueError(f"time {time_us} takes more than 64 bits")
    return Marker(record.topic, record.partition, record.offset, symbol, kind, session, time_us)
