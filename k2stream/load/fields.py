"""Columns of a file -> columns of a contract, a field at a time; what cannot be read is marked, never guessed and never rounded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.errors import LoadError
from k2stream.load import numbers, times
from k2stream.load.mapping import Kind, Source
from k2stream.rows import TIMESTAMP

Mask = NDArray[np.bool_]

FLAGS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "false": False, "f": False, "no": False, "n": False, "0": False}
UNREADABLE = "expected text in the file's encoding"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of some rows."""

    values: pa.Array
    """Of the contract's type, or a dictionary of it; nothing is said of bad rows."""
    bad: Mask
    wanted: str
    """For a person: what bad rows lack."""
    found: pa.Array
    """What stands in the file, as text; null where nothing does."""
    unreadable: Mask = field(default_factory=lambda: np.zeros(0, bool))

    def missing(self) -> Mask:
        """Rows without a value."""
        none: Mask = self.values.is_null().to_numpy(zero_copy_only=False)
        return none


def texts(column: pa.Array, empty: Sequence[str]) -> tuple[pa.Array, Mask]:
    """A column as trimmed text, null where it says nothing, and which rows are no text at all."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values, bad = (column, np.zeros(len(column), bool)) if pa.types.is_string(column.type) else numbers.cast(column, pa.string())
    trimmed = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.is_in(trimmed, pa.array(list(empty), pa.string())), pa.scalar(None, pa.string()), trimmed), bad


def read_field(name: str, source: Source, kind: Kind, columns: pa.Table, *, words: Sequence[str] = (), empty: Sequence[str] = ("",)) -> Field:
    """The field of every row; raises LoadError where the whole column cannot be this field."""
    if source.constant is not None:
        return _constant(name, source, kind, columns.num_rows, words)
    own = [_whole(columns[column]) for column in source.reads]
    if kind is Kind.TIME and len(own) == 1 and pa.types.is_temporal(own[0].type):
        return _stored_time(name, source, own[0])
    found, unreadable = _joined([texts(_exact(name, source, column), empty) for column in own])
    return _of_texts(source, kind, found, unreadable, words)


def _of_texts(source: Source, kind: Kind, found: pa.Array, unreadable: Mask, words: Sequence[str]) -> Field:
    values, bad, wanted = READERS[kind](source, found, words)
    # Nothing is nothing: a field that may be empty is, and one that may not is refused for that.
    bad = bad & found.is_valid().to_numpy(zero_copy_only=False)
    return Field(values, bad | unreadable, wanted, found, unreadable)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _exact(name: str, source: Source, column: pa.Array) -> pa.Array:
    """Raises LoadError for doubles: which decimal number was meant is the mapping's to say."""
    if pa.types.is_floating(column.type) and source.double == "refuse":
        raise LoadError(
            f"{name}: expected a column of decimals, whole numbers or text, found {column.type} in column {source.column}, which holds most decimals "
            f"inexactly. Write the file with decimals, or say `double: shortest` for the shortest decimal number that reads back the same."
        )
    return column


def _joined(parts: list[tuple[pa.Array, Mask]]) -> tuple[pa.Array, Mask]:
    if len(parts) == 1:
        return parts[0]
    unreadable = np.logical_or.reduce([bad for _, bad in parts])
    return pc.binary_join_element_wise(*(values for values, _ in parts), " "), unreadable


def _constant(name: str, source: Source, kind: Kind, rows: int, words: Sequence[str]) -> Field:
    one = _of_texts(source, kind, pa.array([source.constant or None], pa.string()), np.zeros(1, bool), words)
    if one.bad[0]:
        raise LoadError(f"{name}: expected {one.wanted}, found {source.constant!r}. Correct the constant.")
    where = pa.repeat(pa.scalar(0, pa.int32()), rows)
    is_word = pa.types.is_string(one.values.type) and not one.values.null_count
    values = pa.DictionaryArray.from_arrays(where, one.values) if is_word else one.values.take(where)
    return Field(values, np.zeros(rows, bool), one.wanted, one.found.take(where))


def _stored_time(name: str, source: Source, column: pa.Array) -> Field:
    """A Parquet column of times."""
    stored = column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column
    if not pa.types.is_timestamp(stored.type):
        raise LoadError(f"{name}: expected a time with its date, found {column.type} in column {source.column}. Map another column.")
    if stored.type.tz is None and not source.timezone:
        raise LoadError(f"{name}: column {source.column} holds times of no zone ({column.type}). Say whose they are, as in `timezone: UTC`.")
    micros = stored.cast(pa.timestamp("us", stored.type.tz), safe=False)
    found = column.cast(pa.string())
    if stored.type.tz is not None:
        return Field(micros.cast(TIMESTAMP), np.zeros(len(column), bool), "a time", found)
    read = times.zoned(pc.fill_null(micros.cast(pa.int64()), 0).to_numpy(), source.timezone)
    bad = read.bad & column.is_valid().to_numpy(zero_copy_only=False)
    return Field(_micros(read.values, column), bad, f"a time that clocks in {source.timezone} showed", found)


def _micros(values: NDArray[np.int64], like: pa.Array) -> pa.Array:
    return pa.array(values, mask=~like.is_valid().to_numpy(zero_copy_only=False)).cast(TIMESTAMP)


# --- from texts, by kind --------------------------------------------------------------------------------------

Read = tuple[pa.Array, Mask, str]


def _decimal(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    values, bad = numbers.decimals(found, decimal=source.decimal, thousands=source.thousands)
    sign = f", {source.decimal!r} before the decimals" if source.decimal != "." else ""
    return values, bad, f"a number of at most 10 digits and 8 decimals{sign}"


def _number(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    values, bad = numbers.whole(found, thousands=source.thousands)
    return values, bad, "a whole number"


def _time(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    if source.unit:
        read, wanted = times.counted(found, unit=source.unit), f"a count of {source.unit} since 1970"
    else:
        read = times.written(pc.fill_null(found, ""), form=source.format, timezone=source.timezone)
        wanted = f"a time as in {source.format}" if source.format else "a time as ISO 8601 writes it"
        wanted += f", as clocks in {source.timezone} show it" if source.timezone else ", with its zone, for the mapping says no `timezone`"
    return _micros(read.values, found), read.bad, wanted


def _word(source: Source, found: pa.Array, words: Sequence[str]) -> Read:
    known = dict(source.values) or {word.upper(): word for word in words}
    return _looked_up(source, found if source.values else pc.utf8_upper(found), known, pa.string())


def _flag(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    if unknown := [v for v in source.values.values() if v.lower() not in FLAGS]:
        raise LoadError(f"values: expected true or false, found {unknown[0]!r}.")
    known = {k: FLAGS[v.lower()] for k, v in source.values.items()} or FLAGS
    return _looked_up(source, found if source.values else pc.utf8_lower(found), known, pa.bool_())


def _text(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    if not source.values:
        return (found if source.otherwise is None else pc.fill_null(found, source.otherwise)), np.zeros(len(found), bool), "a value"
    return _looked_up(source, found, source.values, pa.string())


def _looked_up(source: Source, found: pa.Array, known: Mapping[str, object], kind: pa.DataType) -> Read:
    at = pc.index_in(found, pa.array(list(known), pa.string()))
    values = pa.array(list(known.values()), kind).take(at)
    if source.otherwise is not None:
        other = FLAGS.get(source.otherwise.lower()) if pa.types.is_boolean(kind) else source.otherwise
        values = pc.fill_null(values, pa.scalar(other, kind))
    return values, values.is_null().to_numpy(zero_copy_only=False), f"one of {', '.join(known)}"


def _list(source: Source, found: pa.Array, _: Sequence[str]) -> Read:
    kind = pa.list_(pa.field("element", pa.string(), nullable=False))
    filled = pc.fill_null(found, "")
    split = pc.split_pattern(filled, source.separator) if source.separator else pa.ListArray.from_arrays(np.arange(len(filled) + 1, dtype=np.int32), filled)
    present = pc.not_equal(pc.binary_length(filled), 0)
    return pc.if_else(present, split, pa.scalar([], split.type)).cast(kind), np.zeros(len(found), bool), "a list"


READERS: Mapping[Kind, Callable[[Source, pa.Array, Sequence[str]], Read]] = {
    Kind.DECIMAL: _decimal,
    Kind.TIME: _time,
    Kind.WHOLE: _number,
    Kind.WORD: _word,
    Kind.FLAG: _flag,
    Kind.LIST: _list,
    Kind.TEXT: _text,
}


def maps(entries: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """A map a row of what has a value; null where there is no entry at all."""
    kind = pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False))
    if not entries:
        return pa.nulls(rows, kind)
    plain = [v.dictionary_decode() if pa.types.is_dictionary(v.type) else v for v in entries.values()]
    at, which = np.nonzero(np.stack([v.is_valid().to_numpy(zero_copy_only=False) for v in plain], axis=1))
    items = pa.concat_arrays(plain).take(pa.array(which * rows + at))
    keys = pa.array(list(entries)).take(pa.array(which))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=rows))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, items).cast(kind)
