"""Fetches of log batches to rows: joined and fast where borders are proven, record by record where they are not."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from numpy.typing import NDArray

from k2stream.decode.added import column_of_values
from k2stream.decode.avro_type import RecordType
from k2stream.decode.block import UNFRAMED, Block, BlockReader, open_block, places_of
from k2stream.decode.columns import column_of, constant_word, decoded_schema, origin_columns
from k2stream.decode.framing import SchemaSource, schema_id_of
from k2stream.decode.record_decoder import RecordDecoder, Row, WriterSchema, WriterSchemas
from k2stream.decode.split import split
from k2stream.errors import DecodeError
from k2stream.records import Batch, Kind, LogBatch, Record, TopicPartition
from k2stream.rows import joined
from k2stream.verdict import Decoded, Marker, Reject

FEW_RECORDS = 80
"""One call of the block reader costs about 2.5 ms, one record alone about 30 us: fewer records than this go one by one."""
PATIENCE = 16
"""Log batches without a bad record after which a partition is no longer a spoiled one."""
FEW_ASIDE = 0.1
"""Share of a log batch: where more was put aside, it is rather odd than spoiled, and the next one may be read as it is."""
MOST_BYTES = 4 << 20
"""Decompressed bytes of one call, some 15,000 trades: it bounds the memory, and its fixed cost is nothing to them.
A log batch is never split."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one log batch, or its records of one schema, became: rows `start` to `stop` of a table, and what are no rows."""

    table: pa.Table
    start: int
    stop: int
    rejects: tuple[Reject, ...] = ()
    markers: tuple[Marker, ...] = ()
    is_part: bool = False
    """True if other records of the log batch lie between these."""


Pieces = dict[int, list[Piece]]
"""By position of the log batch in the call."""

Group = list[tuple[int, Block]]
"""Blocks with the positions of their log batches."""


def no_columns() -> pa.Schema | None:
    """A table that has nothing beyond the contract."""
    return None


class Decoder:
    """Decodes one contract (`trade_v2`, ...); for one thread.

    Rows have the contract's columns and their origin (k2stream.rows), words as dictionaries, and then the columns that their
    writers' schemas add (k2stream.decode.added). A bad record costs its log batch the slow path and its neighbours nothing.
    """

    def __init__(self, schema_name: str, registry: SchemaSource, *, held: Callable[[], pa.Schema | None] = no_columns) -> None:
        """`held` gives the table's columns as last seen, the same object until they change; a schema that does not fit them is refused."""
        self._schema = decoded_schema(schema_name)
        self._no_rows = self._schema.empty_table()  # Arrow takes some 200 us to make it
        self._schemas = WriterSchemas(schema_name, registry)
        self._records = RecordDecoder(self._schemas)
        self._readers: dict[int, BlockReader] = {}
        self._held, self._held_now = held, no_columns()
        self._mixed: set[TopicPartition] = set()
        """Where the last log batches were written with several schemas: those are taken apart at once, the others when a read fails."""
        self._spoiled: dict[TopicPartition, int] = {}
        """Where a log batch held records that are no rows, but few, and how many without any it takes until that is forgotten: meanwhile they are
        taken apart at once, for a read that fails is read for nothing, and halving costs twice as many calls."""

    def decode(self, batch: Batch) -> Decoded:
        """One batch alone; see decode_many."""
        return self.decode_many([batch])[0]

    def decode_many(self, batches: Sequence[Batch]) -> list[Decoded]:
        """Each batch as rows, rejects and markers in offset order; one call of the block reader for as many as fit.

        Raises RegistryUnavailable (ask again), and DecodeError naming the log batch if its bytes are not Kafka's format.
        """
        self._look_at_table()
        numbered = list(enumerate(b for batch in batches for b in batch.log_batches))
        pieces = self._decode([(n, b) for n, b in numbered if b.kind is Kind.DATA and b.count > 0])
        decoded, at = [], 0
        for batch in batches:
            mine = range(at, at + len(batch.log_batches))
            at += len(batch.log_batches)
            decoded.append(self._joined([piece for n in mine for piece in pieces.get(n, ())]))
        return decoded

    def _look_at_table(self) -> None:
        held = self._held()
        if held is not self._held_now:
            self._held_now = held
            self._schemas.hold(f for f in held or () if f.name not in self._schema.names)
            self._readers.clear()

    def _decode(self, data: list[tuple[int, LogBatch]]) -> Pieces:
        pieces: Pieces = defaultdict(list)
        groups: dict[int, Group] = defaultdict(list)
        mixed: Group = []
        for number, log_batch in data:
            block = open_block(log_batch)
            if block is None:
                pieces[number] = [self._one_by_one(log_batch)]
            elif self._reader(block.schema_id) is None or (self._mixed and _tp(log_batch) in self._mixed):
                mixed.append((number, block))
            else:
                groups[block.schema_id].append((number, block))
        for call in _calls(mixed):
            for number, block in self._taken_apart(call):
                groups[block.schema_id].append((number, block))
        self._read_groups(groups, pieces)
        return pieces

    def _read_groups(self, groups: Mapping[int, Group], pieces: Pieces, *, is_sifted: bool = False) -> None:
        """`is_sifted`: what looks spoiled was put aside already, so each block is of one schema and worth a read."""
        for schema_id, group in groups.items():
            if self._reader(schema_id) is None:
                for number, block in group:
                    pieces[number].append(self._block_one_by_one(block))
                continue
            spoiled: Group = []
            plain: Group = []
            for number, block in group:
                is_spoiled = bool(self._spoiled) and not is_sifted and block.places is None and _tp(block.log_batch) in self._spoiled
                (spoiled if is_spoiled else plain).append((number, block))
            for call in _calls(plain):
                self._read(schema_id, call, pieces, is_pure=is_sifted)
            for call in _calls(spoiled):
                self._read_groups(_by_schema(self._taken_apart(call, held_to=self._written)), pieces, is_sifted=True)

    def _reader(self, schema_id: int) -> BlockReader | None:
        if schema_id not in self._readers:
            schema = self._schemas.find(schema_id) if schema_id != UNFRAMED else None
            if not isinstance(schema, WriterSchema):
                return None
            old = schema.conversion
            contract, target = (old.contract, old.target) if old else (self._schemas.contract, self._schema)
            self._readers[schema_id] = BlockReader(schema, contract, target)
        reader = self._readers[schema_id]
        return reader if reader.is_able else None

    def _read(self, schema_id: int, group: Group, pieces: Pieces, *, is_pure: bool = False) -> None:
        """Read jointly. If anything is not proven, take log batches apart by schema and put aside what looks spoiled, and else halve: one
        bad log batch among n costs log2(n) calls more, not n. `is_pure` says that there are none to take apart."""
        counts = [block.count for _, block in group]
        is_worth_it = sum(counts) >= FEW_RECORDS
        columns = self._readers[schema_id].read([block for _, block in group]) if is_worth_it else None
        if columns is not None and self._place(schema_id, group, counts, columns, pieces):
            if self._spoiled:
                for block in (block for _, block in group if block.places is None):
                    self._forget(_tp(block.log_batch), 1)
            return
        is_pure = is_pure or not is_worth_it
        parts = group if is_pure else self._taken_apart(group, held_to=self._written)
        if _differ(parts, group):
            self._read_groups(_by_schema(parts), pieces, is_sifted=True)
        elif len(group) == 1 or not is_worth_it:
            self._spoiled |= {_tp(block.log_batch): PATIENCE for _, block in group if is_worth_it}
            for number, block in group:
                pieces[number].append(self._block_one_by_one(block))
        else:
            half = len(group) // 2
            for some in (group[:half], group[half:]):
                self._read(schema_id, some, pieces, is_pure=True)

    def _written(self, schema_id: int) -> RecordType | None:
        reader = self._reader(schema_id)
        return None if reader is None else reader.schema.written

    def _taken_apart(self, group: Group, *, held_to: Callable[[int], RecordType | None] | None = None) -> Group:
        """The blocks by schema, and as k2stream.decode.split puts records aside.

        Remembers which partitions hold mixed log batches. What looks spoiled is put aside only where a read failed: it may be no more than odd.
        """
        parts = split([block for _, block in group], held_to=held_to)
        for (_, block), of_one in zip(group, parts, strict=True):
            if block.places is None:
                self._remember(block, of_one, is_sifted=held_to is not None)
        return [(number, part) for (number, _), of_one in zip(group, parts, strict=True) for part in of_one]

    def _remember(self, block: Block, parts: Sequence[Block], *, is_sifted: bool) -> None:
        tp, able = {_tp(block.log_batch)}, [part.count for part in parts if self._reader(part.schema_id) is not None]
        self._mixed = self._mixed | tp if len(able) > 1 else self._mixed - tp
        if is_sifted:
            self._note(_tp(block.log_batch), share_aside=1 - sum(able) / block.count)

    def _note(self, tp: TopicPartition, *, share_aside: float) -> None:
        if share_aside > FEW_ASIDE:
            self._spoiled.pop(tp, None)
        elif share_aside:
            self._spoiled.setdefault(tp, PATIENCE)

    def _forget(self, tp: TopicPartition, log_batches: int) -> None:
        """So many less to wait for: nothing of them was bad."""
        left = self._spoiled.pop(tp, 0) - log_batches
        if left > 0:
            self._spoiled[tp] = left

    def _place(self, schema_id: int, group: Group, counts: list[int], columns: list[pa.Array], pieces: Pieces) -> bool:
        """Columns of a proven read with their origins, cut into log batches; what nobody asked for is cut off.

        False if a record of an older version does not fit the contract.
        """
        starts = np.cumsum([0, *counts])
        bases = np.array([b.log_batch.base_offset for _, b in group], dtype=np.int64)
        offsets = np.repeat(bases, counts) + places_of([b for _, b in group])
        words = list(dict.fromkeys(b.log_batch.topic for _, b in group))
        codes = np.array([words.index(b.log_batch.topic) for _, b in group], dtype=np.int32)
        partitions = np.array([b.log_batch.partition for _, b in group], dtype=np.int32)
        topics = pa.DictionaryArray.from_arrays(pa.array(np.repeat(codes, counts)), pa.array(words))
        table = self._table(columns, topics, np.repeat(partitions, counts), offsets, self._readers[schema_id].schema)
        if table is None:
            return False
        for (number, block), start, count in zip(group, starts[:-1].tolist(), counts, strict=True):
            skipped = int(np.searchsorted(offsets[start : start + count], block.log_batch.from_offset))
            pieces[number].append(Piece(table, start + skipped, start + count, is_part=block.places is not None))
        return True

    def _block_one_by_one(self, block: Block) -> Piece:
        if block.places is None:
            return self._one_by_one(block.log_batch)
        piece = replace(self._one_by_one(block.log_batch.of(block.raw, block.count)), is_part=True)
        if piece.rejects and _tp(block.log_batch) in self._spoiled:
            self._spoiled[_tp(block.log_batch)] = PATIENCE
        elif not piece.rejects:  # one that is odd may be a bad one that came out well, several are odd: to be read as they are the next time
            self._forget(_tp(block.log_batch), PATIENCE if piece.stop - piece.start > 1 else 1)
        return piece

    def _one_by_one(self, log_batch: LogBatch) -> Piece:
        rows: dict[int, list[tuple[int, Row]]] = defaultdict(list)
        others: list[Marker | Reject] = []
        for record in _records(log_batch):
            found = self._records.decode(record)
            if isinstance(found, (Marker, Reject)):
                others.append(found)
            else:
                rows[schema_id_of(record.value or b"")].append((record.offset, found))
        tables = [self._rows_table(log_batch, schema_id, of_one) for schema_id, of_one in rows.items()]
        table = in_offset_order(tables) if len(tables) > 1 else tables[0] if tables else self._no_rows
        rejects, markers = tuple(o for o in others if isinstance(o, Reject)), tuple(o for o in others if isinstance(o, Marker))
        return Piece(table, 0, table.num_rows, rejects, markers)

    def _rows_table(self, log_batch: LogBatch, schema_id: int, rows: list[tuple[int, Row]]) -> pa.Table:
        schema = self._schemas.find(schema_id)
        assert isinstance(schema, WriterSchema), schema  # its records were read
        old = schema.conversion
        contract, target = (old.contract, old.target) if old else (self._schemas.contract, self._schema)
        columns = [column_of([row[f.name] for _, row in rows], target.field(f.name).type) for f in contract.fields]
        columns += [column_of_values([row[a.column.name] for _, row in rows], a) for a in schema.added]
        offsets = np.array([offset for offset, _ in rows], dtype=np.int64)
        partitions = np.full(len(rows), log_batch.partition, dtype=np.int32)
        table = self._table(columns, constant_word(log_batch.topic, len(rows)), partitions, offsets, schema)
        assert table is not None, "every record was checked"
        return table

    def _table(
        self, columns: list[pa.Array], topics: pa.Array, partitions: NDArray[np.int32], offsets: NDArray[np.int64], schema: WriterSchema
    ) -> pa.Table | None:
        names = [f.name for f in self._schemas.contract.fields]
        if schema.conversion is not None:
            converted = schema.conversion.columns(columns, topics, partitions, offsets)
            if converted is None:
                return None
            columns = [converted[name] for name in names]
        own, more = columns[: len(names)], columns[len(names) :]
        vendor_data = own[names.index("vendor_data")] if "vendor_data" in names else None
        whole = pa.schema([*self._schema, *(a.column for a in schema.added)]) if schema.added else self._schema
        return pa.Table.from_arrays([*own, *origin_columns(topics, partitions, offsets, vendor_data), *more], schema=whole)

    def _joined(self, pieces: Sequence[Piece]) -> Decoded:
        parts = [table.slice(start, stop - start) for table, start, stop in _adjacent([piece for piece in pieces if piece.stop > piece.start])]
        is_mixed = any(piece.is_part for piece in pieces)
        rows = self._no_rows if not parts else in_offset_order(parts) if is_mixed else joined(parts)
        rejects, markers = [r for p in pieces for r in p.rejects], [m for p in pieces for m in p.markers]
        if is_mixed:
            rejects.sort(key=lambda r: r.offset)
            markers.sort(key=lambda m: m.offset)
        return Decoded(rows, tuple(rejects), tuple(markers))


def in_offset_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of one partition that lie between each other, as they lie in the log."""
    whole = joined(tables)
    offsets = whole["offset"].to_numpy()
    if (offsets[1:] > offsets[:-1]).all():  # as where what was put aside made no rows
        return whole
    return whole.unify_dictionaries().combine_chunks().take(pa.array(np.argsort(offsets, kind="stable")))


def _differ(parts: Group, group: Group) -> bool:
    return [block.schema_id for _, block in parts] != [block.schema_id for _, block in group]


def _by_schema(group: Group) -> Mapping[int, Group]:
    groups: dict[int, Group] = defaultdict(list)
    for number, block in group:
        groups[block.schema_id].append((number, block))
    return groups


def _tp(log_batch: LogBatch) -> TopicPartition:
    return TopicPartition(log_batch.topic, log_batch.partition)


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


def _calls(group: Group) -> Iterator[Group]:
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
