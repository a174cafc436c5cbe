"""Confluent framing: one zero byte, the schema's id in four bytes, then the Avro body."""

from typing import NamedTuple, Protocol

from k2stream.rows import AvroSchema
from k2stream.verdict import Reason

MAGIC = 0
FRAME_BYTES = 5
"""Magic byte and schema id, before the body."""


class SchemaSource(Protocol):
    """Where the schema that a record names comes from."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema, or None if the source does not know the id for now; raises RegistryUnavailable if it cannot tell."""
        ...


class Framed(NamedTuple):
    """What the first bytes of a value say."""

    schema_id: int | None
    reason: Reason | None
    """Why the value is not framed; None: it is."""
    text: str


def frame(schema_id: int, body: bytes) -> bytes:
    """A record's value."""
    return bytes([MAGIC]) + schema_id.to_bytes(4, "big") + body


def read_frame(value: bytes) -> Framed:
    """The schema id of a value, or why it has none."""
    if not value or value[0] != MAGIC:
        found = f"byte {value[0]:#04x}" if value else "no byte"
        return Framed(None, Reason.BAD_MAGIC, f"A value starts with byte 0x00 (Confluent framing), found {found}.")
    if len(value) < FRAME_BYTES:
        return Framed(None, Reason.TRUNCATED, f"A value has 5 bytes before its body, found {len(value)} in all.")
    return Framed(int.from_bytes(value[1:FRAME_BYTES], "big"), None, "")


def schema_id_of(value: bytes) -> int:
    """The schema id of a framed value."""
    return int.from_bytes(value[1:FRAME_BYTES], "big")
