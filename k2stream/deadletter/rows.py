"""Dead letters as rows of their table: everything that a letter says, and nothing that knows of the commit; pure."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from k2stream.deadletter.envelope import Letter
from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration
from k2stream.records import Headers
from k2stream.rows import TIMESTAMP
from k2stream.topics.name import TopicName
from k2stream.verdict import Reason

HEADER = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary(), nullable=False)])

LETTERS = pa.schema(
    [
        pa.field("origin", pa.string(), nullable=False),
        pa.field("first_origin", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("file", pa.string()),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("data_type", pa.string(), nullable=False),
        pa.field("symbol", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("schema_id", pa.int64()),
        pa.field("first_seen", TIMESTAMP, nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.field("element", HEADER, nullable=False)), nullable=False),
    ]
)
"""`offset` is the line where `file` says that the record came from a file; `first_seen` is `timestamp_ms` as a time, held
inside the years 1 to 9999 (a broken producer may say anything)."""

DEAD_LETTERS = TableDeclaration(
    name="dead_letters",
    schema=pa.schema([*LETTERS, *COMMIT_FIELDS]),
    day_of=None,
    partition_by=(),
    sort_by=("topic", "partition", "offset"),
    bounds=("origin", "first_origin", "topic", "partition", "offset", "reason", "symbol", "first_seen"),
    unique=("origin", "first_origin", "value"),
)

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, which is what DuckDB and Python can say."""

SYMBOL_CHARACTERS = 64
"""A longer key is no symbol."""
AS_THEY_ARE = ("origin", "first_origin", "attempt", "topic", "partition", "offset", "file", "schema_id", "timestamp_ms", "key", "value")
"""Columns that are a letter's own words."""


def letter_rows(letters: Iterable[Letter]) -> pa.Table:
    """One row a letter, as LETTERS, in the order given."""
    all_of = list(letters)
    names = {topic: TopicName.parse(topic) for topic in {letter.topic for letter in all_of}}
    columns: dict[str, list[Any]] = {
        **{name: [getattr(letter, name) for letter in all_of] for name in AS_THEY_ARE},
        "exchange": [names[letter.topic].exchange for letter in all_of],
        "data_type": [names[letter.topic].data_type for letter in all_of],
        "symbol": [symbol_of(letter.key) for letter in all_of],
        "reason": [letter.reason.value for letter in all_of],
        "text": [_whole(letter.text) for letter in all_of],
        "first_seen": [min(max(letter.timestamp_ms, FIRST_MS), LAST_MS) * 1000 for letter in all_of],
        "headers": [[{"name": _whole(name), "value": value} for name, value in letter.headers] for letter in all_of],
    }
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in LETTERS], schema=LETTERS)


def letters_of(rows: pa.Table) -> list[Letter]:
    """The letters that `letter_rows` wrote; columns beyond LETTERS are left out."""
    return [_letter(row) for row in rows.to_pylist()]


def symbol_of(key: bytes | None) -> str | None:
    """The symbol that a record's key names; None if it can be none."""
    if not key or len(key) > SYMBOL_CHARACTERS:
        return None
    text = key.decode(errors="replace")
    return text if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text else None


def _letter(row: dict[str, object]) -> Letter:
    values = {name: row[name] for name in ("topic", "partition", "offset", "timestamp_ms", "key", "value", "text", "schema_id", "first_origin", "attempt")}
    return Letter(**values, headers=_headers(row["headers"]), reason=Reason(row["reason"]), file=row["file"])  # type: ignore[arg-type] # columns of LETTERS


def _headers(pairs: object) -> Headers:
    assert isinstance(pairs, list)
    return tuple((pair["name"], pair["value"]) for pair in pairs)


def _whole(text: str) -> str:
    """Text made from broken UTF-8 must not stop a letter."""
    return text.encode(errors="replace").decode()
