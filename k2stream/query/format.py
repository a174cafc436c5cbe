"""An answer as text: a table for people, CSV and JSON for programs; decimals and times never lose a digit."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

import pyarrow as pa

Form = Literal["table", "csv", "json"]

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None
"""What JSON can say."""

CELL_CHARACTERS = 40
"""Longer cells are cut in the table form, which is for reading; CSV and JSON hold them whole."""


def as_text(answer: pa.Table, form: Form) -> str:
    """The answer in the form asked for, ending with a line break."""
    match form:
        case "table":
            return as_table(answer)
        case "csv":
            return as_csv(answer)
        case "json":
            return as_json(answer)


def as_json(answer: pa.Table) -> str:
    """A JSON array, one object a row on a line of its own; decimals and times are strings."""
    rows = (json.dumps(dict(zip(answer.column_names, row, strict=True)), ensure_ascii=False) for row in plain_rows(answer))
    body = ",\n".join(rows)
    return f"[\n{body}\n]\n" if body else "[]\n"


def as_csv(answer: pa.Table) -> str:
    """RFC 4180 with a header; lists and maps are JSON in their cell, a null is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(answer.column_names)
    writer.writerows([cell(value) for value in row] for row in plain_rows(answer))
    return text.getvalue()


def as_table(answer: pa.Table) -> str:
    """Columns in line, numbers to the right, and how many rows there are."""
    cells = [[shortened(cell(value)) for value in row] for row in plain_rows(answer)]
    widths = [max(len(text) for text in column) for column in zip(answer.column_names, *cells, strict=True)]
    is_number = [is_numeric(field.type) for field in answer.schema]
    lines = [
        "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in zip(row, widths, is_number, strict=True)).rstrip()
        for row in [answer.column_names, ["-" * width for width in widths], *cells]
    ]
    count = f"({len(answer):,} row{'' if len(answer) == 1 else 's'})"
    return "\n".join([*lines, count]) + "\n"


def plain_rows(answer: pa.Table) -> Iterator[list[Plain]]:
    """The rows with every value as JSON can say it."""
    for batch in answer.to_batches():
        columns = [[plain(value, kind) for value in column.to_pylist()] for column, kind in zip(batch.columns, batch.schema.types, strict=True)]
        yield from (list(row) for row in zip(*columns, strict=True))


def plain(value: object, kind: pa.DataType) -> Plain:
    """One value: decimals in full digits, times in ISO 8601 with `Z`, maps as objects."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case list() if pa.types.is_map(kind):
            return {str(key): plain(item, kind.item_type) for key, item in value}
        case list():
            return [plain(item, kind.value_type) for item in value]
    return str(value)


def cell(value: Plain) -> str:
    """One value as the text of a cell."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str) -> str:
    """A cell of one line that is not too wide for a table; control characters (a hostile symbol's) are shown, not obeyed."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return line if len(line) <= CELL_CHARACTERS else line[: CELL_CHARACTERS - 1] + "…"


def is_numeric(kind: pa.DataType) -> bool:
    """True for columns that stand to the right."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
