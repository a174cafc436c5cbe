"""Confluent framing: what the first five bytes of a value say."""

import pytest

from k2stream.decode.framing import frame, read_frame
from k2stream.verdict import Reason


@pytest.mark.parametrize("schema_id", [0, 1, 2**32 - 1])
def test_an_id_comes_out_as_it_went_in(schema_id: int) -> None:
    """Any four-byte id survives, and an empty body is no matter of framing."""
    assert read_frame(frame(schema_id, b"")) == (schema_id, None, "")


@pytest.mark.parametrize(
    ("value", "reason"), [(b"", Reason.BAD_MAGIC), (b"\x01\0\0\0\x01", Reason.BAD_MAGIC), (b"\0\0\0\0", Reason.TRUNCATED)]
)
def test_values_without_a_frame_are_named(value: bytes, reason: Reason) -> None:
    """A wrong first byte and a cut one have reasons of their own."""
    framed = read_frame(value)
    assert (framed.schema_id, framed.reason) == (None, reason)
