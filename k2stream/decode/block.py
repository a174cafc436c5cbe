"""Whole log batches to Arrow in one call, with the borders of every record proven, or not at all.

Kafka's record format v2 writes its numbers as Avro does, so the decompressed records of log batches are one Avro block of

    {length, attributes, timestamp_delta, offset_delta, key, value_length, magic, schema_id, body, header_count}

and with an object container's header before it a columnar Avro reader takes them all at once.

The proof. The reader must have read exactly the records that Kafka's lengths say. For each record we compute, from the
values read, the shortest bytes that hold them. A number can be written longer but never shorter, so what the reader
consumed is at least that. If these sizes add up to each log batch's bytes, every record was consumed with exactly its
computed size; if each record's `length` and `value_length` say the same, Kafka's borders are the reader's borders.
Anything else (a longer encoding, a forged record inside a body, bytes after a body) fails the sum or a length, and the
records decide one by one.

What sizes cannot show is looked at: words and decimals out of range, and the branch numbers of nullable fields (the
reader takes any number for "not null"), whose bytes are found at the places that the proven sizes give.

How the reader is called matters: a block with bytes left after its last record makes it spin for ever when it is asked
for more. So there is one block a call, the reader's batch is exactly the expected count, and only one batch is asked for.
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from datafusion import SessionConfig, SessionContext
from numpy.typing import NDArray

from k2stream.decode.added import Added, as_column
from k2stream.decode.avro_reader import BadBody, read_long
from k2stream.decode.avro_type import SPANS, AvroType, Decimal, Enum, Plain, RecordType, Union, as_json, nullable
from k2stream.decode.columns import REPEATING, decimals_of
from k2stream.decode.encoded_size import Sizes, encoded_size, integers, is_sizable, varint_size
from k2stream.decode.framing import FRAME_BYTES, MAGIC
from k2stream.decode.record_decoder import WriterSchema
from k2stream.decode.v1 import RECORD_TIME
from k2stream.records import FURTHEST_MS, LogBatch
from k2stream.rows import TIMESTAMP

SYNC = b"k2stream-a-block"
"""An object container's 16 bytes between blocks."""
UNFRAMED = -1
"""Instead of a schema id: the value names none, its record is no plain one, or its body was held back."""
LONGEST_DECIMAL_BYTES = 8
_FIXED = {name: {"type": "fixed", "name": name, "size": size} for name, size in (("attributes", 1), ("magic", 1), ("schema_id", 4))}
DECODERS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


@dataclass(frozen=True, slots=True)
class Block:
    """One log batch, decompressed, that may go fast: its count fits its offsets. The schema id is that of its first record.

    Or those of its records that one writer's schema was used for.
    """

    log_batch: LogBatch
    raw: bytes
    schema_id: int
    places: NDArray[np.int64] | None = None
    """Which records of the log batch these are, ascending; None: all."""

    @property
    def count(self) -> int:
        return self.log_batch.count if self.places is None else len(self.places)


def open_block(log_batch: LogBatch) -> Block | None:
    """The block of a log batch; None if its records must be read one by one (compacted or damaged)."""
    if log_batch.count != log_batch.last_offset - log_batch.base_offset + 1:
        return None
    try:
        raw = DECODERS[log_batch.codec](log_batch.payload) if log_batch.codec else bytes(log_batch.payload)
    except Exception:  # each codec has its own; the slow path raises what there is to raise
        return None
    return Block(log_batch, raw, _first_schema_id(raw))


def _first_schema_id(raw: bytes) -> int:
    head = raw[:4096]
    try:
        _, at = read_long(head, 0)
        _, at = read_long(head, at + 1)  # past the attributes: the timestamp delta
        _, at = read_long(head, at)
        key, at = read_long(head, at)
        size, at = read_long(head, at + key)
    except BadBody:
        return UNFRAMED
    if key < 0 or size < FRAME_BYTES or head[at : at + 1] != bytes([MAGIC]) or at + FRAME_BYTES > len(head):
        return UNFRAMED
    return int.from_bytes(head[at + 1 : at + FRAME_BYTES], "big")


class BlockReader:
    """Reads blocks of one writer schema into the contract's columns; made once per schema id."""

    def __init__(self, schema: WriterSchema, contract: RecordType, target: pa.Schema) -> None:
        self._schema_id, self._written = schema.schema_id, schema.written
        self._contract, self._target, self.schema = contract, target, schema
        self._wants_time = any(f.name == RECORD_TIME for f in contract.fields)
        self._header = container_header(
            {"value_length": "long", "magic": _FIXED["magic"], "schema_id": _FIXED["schema_id"], "body": as_json(schema.written, itertools.count())}
        )
        self.is_able = all(is_sizable(f.type) for f in schema.written.fields) and all(self._is_simple(f.name, f.type) for f in schema.written.fields)
        """False: this schema's records all go one by one (unions of other shapes, renamed fields, words the contract lacks)."""

    def read(self, blocks: Sequence[Block]) -> list[pa.Array] | None:
        """The contract's columns and then the added ones, of all records of all blocks in order; None if anything is not proven."""
        counts = np.array([b.count for b in blocks], dtype=np.int64)
        raw = b"".join(b.raw for b in blocks)
        found = read_avro(self._header, raw, int(counts.sum()))
        if found is None or found.num_rows != counts.sum():
            return None
        body = found.column("body")
        if body.null_count or body.offset:
            return None
        values = {f.name: body.field(i) for i, f in enumerate(self._written.fields)}
        if not self._in_range(values):
            return None
        sizes = [encoded_size(f.type, values[f.name]) for f in self._written.fields]
        lengths = _borders(found, sum(sizes, start=0), blocks, counts, self._schema_id)
        if lengths is None or not self._branches_hold(raw, np.cumsum(lengths), sizes, values):
            return None
        if self._wants_time:
            if (times := _record_times(found, blocks, counts)) is None:
                return None
            values[RECORD_TIME] = times
        return self._columns(values, found.num_rows)

    def _branches_hold(self, raw: bytes, ends: NDArray[np.int64], sizes: list[Sizes], values: dict[str, pa.Array]) -> bool:
        """Whether every nullable field names the branch of what was read; walks the proven bodies from their ends."""
        data = np.frombuffer(raw, np.uint8)
        at = ends - 1  # the header count is one byte
        for field, size in zip(reversed(self._written.fields), reversed(sizes), strict=True):
            at = at - size
            if isinstance(field.type, Union):
                null_byte = 2 * field.type.branches.index(Plain("null"))
                column = values[field.name]
                is_null = pc.is_null(column).to_numpy(zero_copy_only=False) if column.null_count else False
                if not np.array_equal(data[at], np.where(is_null, null_byte, 2 - null_byte) + np.zeros(len(at), np.uint8)):
                    return False
        return True

    def _is_simple(self, name: str, written: AvroType) -> bool:
        """Whether a field needs no more than a cast to be the contract's."""
        field = next((f for f in self._contract.fields if f.name == name), None)
        if field is None:
            return not any(name in f.aliases for f in self._contract.fields)
        wanted = field.type
        inside, wanted_inside = nullable(written) or written, nullable(wanted) or wanted
        if nullable(written) is not None and nullable(wanted) is None:
            return False
        match inside, wanted_inside:
            case Decimal(), Decimal(precision=precision, scale=scale):
                return precision <= 18 and inside.scale == scale
            case Enum(symbols), Enum(words):
                return set(symbols) <= set(words)
            case Plain(a), Plain(b):
                return a == b or (a, b) == ("int", "long")
        return inside == wanted_inside

    def _in_range(self, values: dict[str, pa.Array]) -> bool:
        """Words the schema has and decimals the table can hold, before any cast."""
        return all(_fits(values[f.name], f.type) for f in self._written.fields)

    def _columns(self, values: dict[str, pa.Array], count: int) -> list[pa.Array] | None:
        columns: list[pa.Array] = []
        for field in self._contract.fields:
            t = self._target.field(field.name).type
            if field.name not in values:
                columns.append(pa.repeat(pa.scalar(_plain_default(field.default), t), count))
                continue
            column = _convert(values[field.name], field.name, field.type, t)
            if column is None:
                return None
            columns.append(column)
        for added in self.schema.added:
            column = _converted(values[added.column.name], added)
            if column is None:
                return None
            columns.append(column)
        return columns


def _fits(column: pa.Array, t: AvroType) -> bool:
    """Whether every value is one of its type, as far as its size does not show it."""
    is_optional = isinstance(t, Union)
    held = column.drop_null() if is_optional and column.null_count else column
    match nullable(t) or t:
        case Enum(symbols) if len(held):
            indices = integers(held.indices)
            return not held.indices.null_count and bool(indices.min() >= 0 and indices.max() < len(symbols))
        case Decimal() if len(held):
            return _decimals_fit(held)
        case Plain(logical=logical) if logical in SPANS and len(held):
            first, last = SPANS[logical]
            found = integers(held)
            return bool(found.min() >= first and found.max() <= last)
    return True


def _converted(column: pa.Array, added: Added) -> pa.Array | None:
    """The column of an added field; None if a decimal has more digits than its type."""
    inside = nullable(added.type) or added.type
    if not isinstance(inside, Decimal):
        return _owned(as_column(column, added))
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    unscaled = np.where(is_null, 0, unscaled_decimals(column))
    if len(unscaled) and _largest(unscaled) >= 10**inside.precision:
        return None
    return decimals_of(unscaled, added.column.type, is_null if column.null_count else None)


def _plain_default(default: Any) -> Any:
    return list(default.items()) if isinstance(default, dict) else default


def _convert(column: pa.Array, name: str, wanted: AvroType, t: pa.DataType) -> pa.Array | None:
    if isinstance(wanted, Decimal):
        unscaled = unscaled_decimals(column)
        return decimals_of(unscaled, t) if len(unscaled) == 0 or _largest(unscaled) < 10**wanted.precision else None
    if name in REPEATING:
        return column.dictionary_encode()
    return _owned(column if column.type == t else column.cast(t))


def _owned(column: pa.Array) -> pa.Array:
    """A copy in memory of exactly its size. One column that is kept as it was read keeps every column of the call, and twice
    the room that their values took; the reader's memory is better used again for the next call.
    """
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(pa.concat_arrays([column.indices]), pa.concat_arrays([column.dictionary]))
    return pa.concat_arrays([column])


def _largest(values: NDArray[np.int64]) -> int:
    return max(-int(values.min()), int(values.max()))


def _decimals_fit(column: pa.Array) -> bool:
    lengths = pc.min_max(pc.binary_length(column))
    return bool(not column.null_count and lengths["min"].as_py() >= 1 and lengths["max"].as_py() <= LONGEST_DECIMAL_BYTES)


def unscaled_decimals(column: pa.Array) -> NDArray[np.int64]:
    """Big-endian two's complement of 1 to 8 bytes as integers.

    The eight bytes that end where a value ends are one unaligned word; shifting it left until the value's first byte leads,
    and back, leaves the value with its sign.
    """
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    data = b"\0" * LONGEST_DECIMAL_BYTES + bytes(memoryview(column.buffers()[2])[: int(offsets[-1])])
    words: NDArray[np.int64] = np.ndarray((len(data) - 7,), dtype=">i8", buffer=data, strides=(1,))
    others = 8 * (LONGEST_DECIMAL_BYTES - np.diff(offsets))
    found: NDArray[np.int64] = (words[offsets[1:]].astype(np.int64) << others) >> others
    return found


def _borders(found: pa.RecordBatch, body_sizes: Sizes, blocks: Sequence[Block], counts: NDArray[np.int64], schema_id: int) -> NDArray[np.int64] | None:
    """Bytes of each record, or None if the proof of the module's docstring fails."""
    length, value_length, offset, stamp, headers = (
        integers(found.column(name)) for name in ("length", "value_length", "offset_delta", "timestamp_delta", "header_count")
    )
    starts = np.cumsum(counts) - counts
    places = places_of(blocks)
    key_size = encoded_size(Plain("bytes"), found.column("key"))
    parts = 2 + varint_size(stamp) + varint_size(offset) + key_size + varint_size(value_length) + value_length
    raw_bytes = np.array([len(b.raw) for b in blocks], dtype=np.int64)
    whole: NDArray[np.int64] = length + varint_size(length)
    holds = (
        np.array_equal(offset, places)
        and not headers.any()
        and not fixed_bytes(found, "attributes").any()
        and not fixed_bytes(found, "magic").any()
        and (fixed_bytes(found, "schema_id").view(">u4") == schema_id).all()
        and (value_length == FRAME_BYTES + body_sizes).all()
        and (length == parts).all()
        and np.array_equal(np.add.reduceat(whole, starts), raw_bytes)
    )
    return whole if holds else None


def _record_times(found: pa.RecordBatch, blocks: Sequence[Block], counts: NDArray[np.int64]) -> pa.Array | None:
    """Each record's own time in the log, as Record.timestamp_us; None if they are too far off to be added up."""
    first, last = -FURTHEST_MS, FURTHEST_MS
    appended = [b.log_batch.append_time_ms for b in blocks]
    bases = np.repeat([b.log_batch.base_timestamp_ms if at is None else at for b, at in zip(blocks, appended, strict=True)], counts)
    deltas = np.where(np.repeat([at is None for at in appended], counts), integers(found.column("timestamp_delta")), 0)
    if not ((bases >= first) & (bases <= last) & (deltas >= first) & (deltas <= last)).all():
        return None
    return pa.array(np.clip(bases + deltas, first, last) * 1000, TIMESTAMP)


def places_of(blocks: Sequence[Block]) -> NDArray[np.int64]:
    """Place in its log batch of each record of the blocks."""
    if any(b.places is not None for b in blocks):
        return np.concatenate([np.arange(b.count) if b.places is None else b.places for b in blocks])
    counts = np.array([b.count for b in blocks], dtype=np.int64)
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def fixed_bytes(found: pa.RecordBatch, name: str) -> NDArray[np.uint8]:
    """The bytes of a column of fixed size, one value after the other."""
    column = found.column(name)
    width = column.type.byte_width
    return np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width : (column.offset + len(column)) * width]


def container_header(value: Mapping[str, Any]) -> bytes:
    """An object container's header for Kafka's records whose value is these fields."""
    fields: dict[str, Any] = {
        "length": "long",
        "attributes": _FIXED["attributes"],
        "timestamp_delta": "long",
        "offset_delta": "long",
        "key": "bytes",
        **value,
        "header_count": "long",
    }
    schema = {"type": "record", "name": "KafkaRecord", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    entries = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": b"null"}
    meta = b"".join(_sized(key) + _sized(value) for key, value in entries.items())
    return b"Obj\x01" + _zigzag(len(entries)) + meta + b"\0" + SYNC


def _zigzag(value: int) -> bytes:
    left, out = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _sized(raw: bytes) -> bytes:
    return _zigzag(len(raw)) + raw


def read_avro(header: bytes, raw: bytes, count: int) -> pa.RecordBatch | None:
    """The first `count` records of one block; None if the reader refuses them. Raises OSError if there is no room for the file."""
    context = SessionContext(SessionConfig().with_target_partitions(1).with_batch_size(count))
    try:
        with _memory_file(header, _zigzag(count), _zigzag(len(raw)), raw, SYNC) as path:
            return context.read_avro(path, file_extension="").execute_stream().next().to_pyarrow()
    except (OSError, MemoryError):
        raise
    except BaseException as exc:  # the reader has one exception for everything, and its panics are no Exception
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            return None
        raise


@contextmanager
def _memory_file(*parts: bytes) -> Iterator[str]:
    """The path of a file that no crash leaves behind; where the system has no such files, a temporary one."""
    if sys.platform == "linux":
        with os.fdopen(os.memfd_create("k2stream-block"), "wb", buffering=0) as file:
            _write_all(file, parts)
            yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(suffix=".avro", buffering=0) as file:
            _write_all(file, parts)
            yield file.name


def _write_all(file: IO[bytes], parts: Sequence[bytes]) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[file.write(left) :]
