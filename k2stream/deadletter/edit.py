"""One letter mended for its next replay, or put aside; the letter itself is never changed."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.standing import DeadLetters
from k2stream.deadletter.trail import Act, word
from k2stream.decode.columns import decoded_schema
from k2stream.decode.decoder import Decoder
from k2stream.decode.registry import open_registry
from k2stream.errors import QueryError
from k2stream.feed.avro import encode_one
from k2stream.query.letters import Selection
from k2stream.records import Batch, LogBatch
from k2stream.rows import SCHEMA_OF_DATA_TYPE, avro_schema, body_schema
from k2stream.topics import TopicName
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing


def newest(letters: DeadLetters, record: str) -> Letter:
    """The newest letter of a record; raises QueryError if there is none."""
    found = letters.chosen(Selection(origins=[record]))
    if found is None or not found.num_rows:
        raise QueryError(f"There is no dead letter of {record}. `k2 dlq list` shows ids, as in market.equities.trades.asx/0/17.")
    return letters.whole(found["origin"].to_pylist())[0]


def edited(letters: DeadLetters, record: str, fields: Mapping[str, object], *, key: bytes | None) -> None:
    """Give fields of a record other values; raises QueryError if it cannot be read, one of its fields would be lost, or a value is not what its field takes."""
    letter = newest(letters, record)
    name = SCHEMA_OF_DATA_TYPE[TopicName.parse(letter.topic).data_type]
    schema, row = body_schema(name), _row_of(letters, letter, name)
    for field, value in fields.items():
        if field not in schema.names:
            raise QueryError(f"{name} has no field {field}; it has {', '.join(schema.names)}.")
        row[field] = _value(field, schema.field(field).type, value)
    schema_id = open_registry(letters.settings).register(TopicName.parse(letter.topic).subject, avro_schema(name))
    try:
        value = encode_one(row, schema=name, schema_id=schema_id)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, KeyError) as exc:
        raise QueryError(f"{record} cannot be written as {name}: {exc}") from exc
    edited_bytes(letters, record, value, key=key)


def edited_bytes(letters: DeadLetters, record: str, value: bytes, *, key: bytes | None) -> None:
    """Give a record another value, whatever it is, and another key if one is given."""
    letter = newest(letters, record)
    new_key = letter.key if key is None else key
    letters.write([word(letters.writer(), letters.clock.now_us(), Act.EDITED, record, attempt=letter.attempt, key=new_key, value=value)])


def put_aside(letters: DeadLetters, records: Sequence[str], *, is_released: bool, why: str | None) -> None:
    """Park records, or release them; raises QueryError naming those that are no dead letters."""
    found = letters.chosen(Selection(origins=records))
    known = set() if found is None else set(found["id"].to_pylist())
    if unknown := [record for record in records if record not in known]:
        raise QueryError(f"There is no dead letter of {', '.join(unknown)}. `k2 dlq list` shows ids.")
    act, by, now_us = Act.RELEASED if is_released else Act.PARKED, letters.writer(), letters.clock.now_us()
    letters.write([word(by, now_us, act, record, note=why) for record in records])


def _row_of(letters: DeadLetters, letter: Letter, name: str) -> dict[str, object]:
    """The record's fields as they are; an edit before this one counts."""
    _, value = letters.edits().get(letter.first_origin, (letter.key, letter.value))
    raw = build_log_batch([Outgoing(letter.key, value, 0)], "none")
    batch = Batch(letter.topic, letter.partition, 0, 1, (LogBatch.parse(letter.topic, letter.partition, raw),), len(raw))
    decoded = Decoder(name, open_registry(letters.settings)).decode(batch)
    if not decoded.rows.num_rows:
        why = decoded.rejects[0].text if decoded.rejects else "it has no value"
        raise QueryError(f"{letter.first_origin} cannot be read, so no field of it can be set: {why} Give its whole value with --value-file.")
    if lost := [column for column in decoded.rows.column_names if column not in decoded_schema(name).names and decoded.rows[column].null_count == 0]:
        raise QueryError(
            f"{letter.first_origin} has {', '.join(lost)} beyond the fields of {name}; set one by one, they would be lost. "
            "Give its whole value with --value-file."
        )
    row: dict[str, object] = decoded.rows.select(body_schema(name).names).to_pylist()[0]
    return row


def _value(field: str, kind: pa.DataType, value: object) -> object:
    if pa.types.is_decimal(kind):
        try:
            return Decimal(str(value))
        except InvalidOperation as exc:
            raise QueryError(f"{field}: expected a decimal number, found {value!r}.") from exc
    return str(value) if pa.types.is_string(kind) and value is not None else value
