"""Columns that a writer's schema adds: all of a schema's, or none."""

import pyarrow as pa
import pytest

from k2stream.decode.added import Added, KnownColumns
from k2stream.decode.avro_type import Plain
from k2stream.errors import DecodeError


def column(name: str, kind: pa.DataType) -> Added:
    return Added(Plain("long"), pa.field(name, kind))


@pytest.mark.parametrize("held", [[], [pa.field("fee", pa.int64())]])
def test_two_names_that_differ_only_in_case_are_no_two_columns(held: list[pa.Field]) -> None:
    """Also where one schema brings both: engines that read names without case would refuse the whole table. Nothing of such a schema is kept."""
    known = KnownColumns(held)
    with pytest.raises(DecodeError, match="field Fee: there is a column fee"):
        known.admit([column("fee", pa.int64()), column("tax", pa.int64()), column("Fee", pa.int64())])
    known.admit([column("TAX", pa.int64())])
    known.admit([column("fee", pa.int64())])
