"""Schemas that Avro allows and hardly anybody writes: their records are judged alike, however many lie together."""

from typing import Any

import pytest

from k2stream.decode.avro_type import parse
from k2stream.decode.decoder import FEW_RECORDS, Decoder
from k2stream.decode.framing import frame
from k2stream.errors import DecodeError
from k2stream.rows import AvroSchema, avro_schema
from tests.properties.trade_records import a_trade, batch_of, body_of, log_batch


def with_note(t: Any) -> AvroSchema:
    """Trades with a field that no table takes: it has no default."""
    schema = avro_schema("trade_v2")
    return {**schema, "fields": [*schema["fields"], {"name": "note", "type": t}]}


class OneSchema:
    """A registry that knows one."""

    def __init__(self, schema: AvroSchema) -> None:
        self._schema = schema

    def schema(self, schema_id: int) -> AvroSchema | None:
        return self._schema if schema_id == 1 else None


def counts(schema: AvroSchema, note: Any, records: int) -> tuple[int, int]:
    """Rows and rejects of so many records in one log batch. `note` is written as it is: the schema's logical types are the reader's concern."""
    plain = with_note(note[0])
    values: list[bytes | None] = [frame(1, body_of(plain, a_trade(n, note=note[1]))) for n in range(records)]
    decoded = Decoder("trade_v2", OneSchema(schema)).decode(batch_of(log_batch(values)))
    return decoded.rows.num_rows, len(decoded.rejects)


@pytest.mark.parametrize("records", [1, FEW_RECORDS + 20])
@pytest.mark.parametrize(
    ("t", "note"),
    [
        ({"type": "string", "logicalType": "timestamp-millis"}, ("string", "yesterday")),
        (["null", {"type": "string", "logicalType": "date"}], (["null", "string"], "today")),
        ({"type": "bytes", "logicalType": "time-millis"}, ("bytes", b"\x01")),
        ({"type": "double", "logicalType": "local-timestamp-micros"}, ("double", 1e300)),
    ],
)
def test_a_time_that_is_no_integer_is_none(t: Any, note: tuple[Any, Any], records: int) -> None:
    """A logical type that does not fit its type is to be ignored: it stops no partition and refuses no record."""
    assert counts(with_note(t), note, records) == (records, 0)


@pytest.mark.parametrize("records", [1, FEW_RECORDS + 20])
@pytest.mark.parametrize(
    ("t", "note"),
    [
        ({"type": "array", "items": {"type": "long", "logicalType": "time-micros"}}, ({"type": "array", "items": "long"}, [-1])),
        ({"type": "map", "values": {"type": "int", "logicalType": "time-millis"}}, ({"type": "map", "values": "int"}, {"at": -1})),
    ],
)
def test_a_time_in_a_list_that_is_none_is_refused_however_many_lie_together(t: Any, note: tuple[Any, Any], records: int) -> None:
    """Whether a record becomes a row does not depend on its neighbours."""
    assert counts(with_note(t), note, records) == (0, records)


def test_a_union_in_a_union_is_refused() -> None:
    """Avro does not allow it, and nothing here is made for it."""
    with pytest.raises(DecodeError, match="a branch of a union"):
        parse(with_note(["null", ["null", "string"]]))
