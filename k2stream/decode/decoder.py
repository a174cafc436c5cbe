"""Fetches of log batches to rows: joined and fast where borders are proven, record by record where they are not."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from numpy.typing import NDArray

from k2stream.decode.block import Block, BlockReader, open_block
from k2stream.decode.columns import column_of, constant_word, decoded_schema, origin_columns
from k2stream.decode.framing import SchemaSource
from k2stream.decode.record_decoder import RecordDecoder, Row, WriterSchemas
from k2stream.errors import DecodeError
from k2stream.records import Batch, Kind, LogBatch, Record
from k2stream.verdict import Decoded, Marker, Reject

FEW_RECORDS = 80
"""One call of the block reader costs about 2.5 ms, one record alone about 30 us: fewer records than this go one by one."""
MOST_BYTES = 4 << 20
"""Decompressed bytes of one call, some 15,000 trades: it bounds the memory, and its fixed cost is nothing to them.
A log batch is never split."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one log batch became: rows `start` to `stop` of a table, and what are no rows."""

    table: pa.Table
    start: int
    stop: int
    rejects: tuple[Reject, ...] = ()
    markers: tuple[Marker, ...] = ()


Pieces = dict[int, Piece]
"""By position of the log batch in the call."""


class Decoder:
    """Decodes one contract (`trade_v2`, ...); for one thread.

    Rows have the contract's columns and their origin (k2stream.rows), words as dictionaries. A bad record costs its log
    batch the slow path and its neighbours nothing.
    """

    def __init__(self, schema_name: str, registry: SchemaSource) -> None:
        self._schema = decoded_schema(schema_name)
        self._schemas = WriterSchemas(schema_name, registry)
        self._records = RecordDecoder(self._schemas)
        self._readers: dict[int, BlockReader] = {}

    def decode(self, batch: Batch) -> Decoded:
        """One batch alone; see decode_many."""
        return self.decode_many([batch])[0]

    def decode_many(self, batches: Sequence[Batch]) -> list[Decoded]:
        """Each batch as rows, rejects and markers in offset order; one call of the block reader for as many as fit.

        Raises RegistryUnavailable (ask again), and DecodeError naming the log batch if its bytes are not Kafka's format.
        """
        numbered = list(enumerate(b for batch in batches for b in batch.log_batches))
        pieces = self._decode([(n, b) for n, b in numbered if b.kind is Kind.DATA and b.count > 0])
        decoded, at = [], 0
        for batch in batches:
            mine = range(at, at + len(batch.log_batches))
            at += len(batch.log_batches)
            decoded.append(self._joined([pieces[n] for n in mine if n in pieces]))
        return decoded

    def _decode(self, data: list[tuple[int, LogBatch]]) -> Pieces:
        pieces: Pieces = {}
        groups: dict[int, list[tuple[int, Block]]] = defaultdict(list)
        for number, log_batch in data:
            block = open_block(log_batch)
            if block is not None and self._reader(block.schema_id) is not None:
                groups[block.schema_id].append((number, block))
            else:
                pieces[number] = self._one_by_one(log_batch)
        for schema_id, group in groups.items():
            for call in _calls(group):
                pieces.update(self._read(schema_id, call))
        return pieces

    def _reader(self, schema_id: int) -> BlockReader | None:
        if schema_id not in self._readers:
            schema = self._schemas.find(schema_id)
            if isinstance(schema, str):
                return None
            self._readers[schema_id] = BlockReader(schema, self._schemas.contract, self._schema)
        reader = self._readers[schema_id]
        return reader if reader.is_able else None

    def _read(self, schema_id: int, group: list[tuple[int, Block]]) -> Pieces:
        """Read jointly; if anything is not proven, halve: one bad log batch among n costs log2(n) calls more, not n."""
        counts = [block.log_batch.count for _, block in group]
        columns = self._readers[schema_id].read([block for _, block in group]) if sum(counts) >= FEW_RECORDS else None
        if columns is not None:
            return self._placed(group, counts, columns)
        if len(group) == 1 or sum(counts) < FEW_RECORDS:
            return {number: self._one_by_one(block.log_batch) for number, block in group}
        half = len(group) // 2
        return self._read(schema_id, group[:half]) | self._read(schema_id, group[half:])

    def _placed(self, group: list[tuple[int, Block]], counts: list[int], columns: list[pa.Array]) -> Pieces:
        """Columns of a proven read with their origins, cut into log batches; what nobody asked for is cut off."""
        starts = np.cumsum([0, *counts])
        bases = np.array([b.log_batch.base_offset for _, b in group], dtype=np.int64)
        offsets = np.repeat(bases - starts[:-1], counts) + np.arange(starts[-1])
        words = list(dict.fromkeys(b.log_batch.topic for _, b in group))
        codes = np.array([words.index(b.log_batch.topic) for _, b in group], dtype=np.int32)
        partitions = np.array([b.log_batch.partition for _, b in group], dtype=np.int32)
        topics = pa.DictionaryArray.from_arrays(pa.array(np.repeat(codes, counts)), pa.array(words))
        table = self._table(columns, topics, np.repeat(partitions, counts), offsets)
        pieces: Pieces = {}
        for (number, block), start, count in zip(group, starts[:-1].tolist(), counts, strict=True):
            skipped = min(max(block.log_batch.from_offset - block.log_batch.base_offset, 0), count)
            pieces[number] = Piece(table, start + skipped, start + count)
        return pieces

    def _one_by_one(self, log_batch: LogBatch) -> Piece:
        rows: list[tuple[int, Row]] = []
        others: list[Marker | Reject] = []
        for record in _records(log_batch):
            found = self._records.decode(record)
            if isinstance(found, (Marker, Reject)):
                others.append(found)
            else:
                rows.append((record.offset, found))
        table = self._rows_table(log_batch, rows)
        rejects = tuple(o for o in others if isinstance(o, Reject))
        return Piece(table, 0, len(rows), rejects, tuple(o for o in others if isinstance(o, Marker)))

    def _rows_table(self, log_batch: LogBatch, rows: list[tuple[int, Row]]) -> pa.Table:
        names = [f.name for f in self._schemas.contract.fields]
        columns = [column_of([row[name] for _, row in rows], self._schema.field(name).type) for name in names]
        offsets = np.array([offset for offset, _ in rows], dtype=np.int64)
        partitions = np.full(len(rows), log_batch.partition, dtype=np.int32)
        return self._table(columns, constant_word(log_batch.topic, len(rows)), partitions, offsets)

    def _table(
        self, columns: list[pa.Array], topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64]
    ) -> pa.Table:
        names = [f.name for f in self._schemas.contract.fields]
        vendor_data = columns[names.index("vendor_data")] if "vendor_data" in names else None
        return pa.Table.from_arrays([*columns, *origin_columns(topics, partitions, offsets, vendor_data)], schema=self._schema)

    def _joined(self, pieces: Sequence[Piece]) -> Decoded:
        parts = [table.slice(start, stop - start) for table, start, stop in _adjacent(pieces) if stop > start]
        rows = pa.concat_tables(parts) if parts else self._schema.empty_table()
        return Decoded(rows, tuple(r for p in pieces for r in p.rejects), tuple(m for p in pieces for m in p.markers))


def _records(log_batch: LogBatch) -> Iterator[Record]:
    try:
        yield from log_batch.records()
    except (CorruptRecordException, UnsupportedCodecError, ValueError, RuntimeError) as exc:
        raise DecodeError(_damaged(log_batch, exc)) from exc
    except Exception as exc:  # a codec's own error has no public name
        if type(exc).__name__ != "DecompressionError":
            raise
        raise DecodeError(_damaged(log_batch, exc)) from exc


def _damaged(log_batch: LogBatch, exc: Exception) -> str:
    where = f"{log_batch.topic}/{log_batch.partition}, offsets {log_batch.base_offset} to {log_batch.last_offset}"
    return f"{where}: the log batch is not Kafka's record format ({exc!r}). Its producer or the log is damaged; nothing of it was read."


def _calls(group: list[tuple[int, Block]]) -> Iterator[list[tuple[int, Block]]]:
    size, number, keys = 0, 0, []
    for _, block in group:
        if size and size + len(block.raw) > MOST_BYTES:
            size, number = 0, number + 1
        size += len(block.raw)
        keys.append(number)
    paired = zip(keys, group, strict=True)
    for _, members in groupby(paired, key=lambda pair: pair[0]):
        yield [member for _, member in members]


def _adjacent(pieces: Sequence[Piece]) -> Iterator[tuple[pa.Table, int, int]]:
    """Pieces as few slices: neighbours in one table are one."""
    table, start, stop = None, 0, 0
    for piece in pieces:
        if piece.table is table and piece.start == stop:
            stop = piece.stop
            continue
        if table is not None:
            yield table, start, stop
        table, start, stop = piece.table, piece.start, piece.stop
    if table is not None:
        yield table, start, stop
