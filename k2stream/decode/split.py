"""Log batches taken apart by Kafka's own lengths: by the schemas their records name, and what looks spoiled put aside.

A record begins with its length, so where the next one begins is known only then: finding the beginnings is the one loop over records here, and
only for log batches that cannot be read as they are. All the rest is done for all records at once. The bytes of the records of one schema, put
together, are a block again, which k2stream.decode.block reads and proves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.decode.avro_reader import BadBody, read_long
from k2stream.decode.avro_type import RecordType
from k2stream.decode.block import UNFRAMED, Block, places_of
from k2stream.decode.framing import FRAME_BYTES, MAGIC
from k2stream.decode.sieve import passing
from k2stream.decode.varint import Mask, Places, padded, read_varints

MOST_SCHEMAS = 16
"""Ids of one call that are told apart, the most frequent ones: random bytes name as many as there are records."""
ID_BYTES = np.array([1 << 24, 1 << 16, 1 << 8, 1])


def split(blocks: Sequence[Block], *, held_to: Callable[[int], RecordType | None] | None = None) -> list[list[Block]]:
    """Each block by schema id, records in order; one whose lengths do not add up stays as it is.

    `held_to` gives the schema of an id: records whose bodies do not look like theirs (k2stream.decode.sieve) are put aside as UNFRAMED.
    """
    beginnings = [_beginnings(block) for block in blocks]
    able = [(block, starts) for block, starts in zip(blocks, beginnings, strict=True) if starts is not None]
    if not able:
        return [[block] for block in blocks]
    data = padded(block.raw for block, _ in able)
    sizes = np.array([len(block.raw) for block, _ in able])
    starts = np.concatenate([starts + shift for (_, starts), shift in zip(able, np.cumsum(sizes) - sizes, strict=True)])
    borders = np.append(starts, sizes.sum())
    records = _records(data, borders, places_of([block for block, _ in able]))
    ids = records.schema_ids()
    sifted = ids if held_to is None else records.sifted(ids, held_to)
    whole = pa.Array.from_buffers(pa.large_binary(), len(starts), [None, pa.py_buffer(borders), pa.py_buffer(data)])
    parts, at = list[list[Block]](), 0
    for block, of_one in zip(blocks, beginnings, strict=True):
        count = 0 if of_one is None else len(of_one)
        mine = slice(at, at + count)
        # Where nothing passes there is nothing to read together: it is for a read to say whether all is bad or all is odd.
        useful = sifted[mine] if (sifted[mine] != UNFRAMED).any() else ids[mine]
        parts.append([block] if of_one is None else _by_schema(block, whole.slice(at, count), useful))
        at += count
    return parts


@dataclass(frozen=True, slots=True)
class Records:
    """Where the values of records lie in their bytes."""

    data: NDArray[np.uint8]
    """Padded."""
    values: Places
    ends: Places
    is_plain: Mask
    """No attributes and headers, a key, the place in its log batch that its offset says, and a value with room for a frame."""

    def schema_ids(self) -> NDArray[np.int64]:
        """What each value's frame says."""
        at = np.where(self.is_plain, self.values, 0)
        head = self.data[at[:, None] + np.arange(FRAME_BYTES)].astype(np.int64)
        ids: NDArray[np.int64] = np.where(self.is_plain & (head[:, 0] == MAGIC), head[:, 1:] @ ID_BYTES, UNFRAMED)
        different, counts = np.unique(ids, return_counts=True)
        return np.where(np.isin(ids, different[np.argsort(-counts)[:MOST_SCHEMAS]]), ids, UNFRAMED)

    def sifted(self, ids: NDArray[np.int64], held_to: Callable[[int], RecordType | None]) -> NDArray[np.int64]:
        """The same ids, but UNFRAMED where a body does not look like its schema."""
        ids = ids.copy()
        for schema_id in np.unique(ids[ids != UNFRAMED]).tolist():
            schema = held_to(schema_id)
            if schema is not None:
                places = np.flatnonzero(ids == schema_id)
                is_passing = passing(self.data, self.values[places] + FRAME_BYTES, self.ends[places], schema)
                ids[places[~is_passing]] = UNFRAMED
        return ids


def _beginnings(block: Block) -> Places | None:
    """Where each record begins; None if their lengths are not the block's."""
    raw, at, found = block.raw, 0, list[int]()
    try:
        for _ in range(block.count):
            found.append(at)
            first, second = raw[at], raw[at + 1]
            if first >= 0x80 > second and not first & 1:  # nearly all records: 64 to 8,191 bytes
                at += 2 + ((first & 0x7F | second << 7) >> 1)
            else:
                length, at = read_long(raw, at)
                at += max(length, 0)
    except (BadBody, IndexError):
        return None
    return np.array(found, dtype=np.int64) if at == len(raw) else None


def _records(data: NDArray[np.uint8], borders: Places, places: Places) -> Records:
    ends = borders[1:]
    _, at, is_plain = read_varints(data, borders[:-1])
    at = np.minimum(at, ends)
    is_plain &= data[at] == 0
    at = np.minimum(at + 1, ends)
    _, at, is_fine = read_varints(data, at)
    offset, at, is_place = read_varints(data, np.minimum(at, ends))
    is_plain &= is_fine & is_place & (offset == places)
    _, at, is_fine = _sized(data, at, ends)
    is_plain &= is_fine
    values, at, is_fine = _sized(data, at, ends)
    is_plain &= is_fine & (at - values >= FRAME_BYTES) & (at == ends - 1) & (data[np.minimum(at, ends)] == 0)
    return Records(data, values, at, is_plain)


def _sized(data: NDArray[np.uint8], at: Places, ends: Places) -> tuple[Places, Places, Mask]:
    """Where bytes with their length before them begin and end, and whether they are there."""
    length, first, is_well = read_varints(data, np.minimum(at, ends))
    is_well &= (length >= 0) & (length <= ends - first)
    first = np.minimum(first, ends)
    return first, np.where(is_well, first + length, ends), is_well


def _by_schema(block: Block, records: pa.LargeBinaryArray, ids: NDArray[np.int64]) -> list[Block]:
    different = np.unique(ids)
    if len(different) == 1:
        return [Block(block.log_batch, block.raw, int(different[0]), block.places)]
    parts, places = [], places_of([block])
    for schema_id in different.tolist():
        which = np.flatnonzero(ids == schema_id)
        mine = records.take(pa.array(which))
        parts.append(Block(block.log_batch, bytes(memoryview(mine.buffers()[2])[: int(_ends(mine)[-1])]), schema_id, places[which]))
    return parts


def _ends(values: pa.LargeBinaryArray) -> NDArray[np.int64]:
    return np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
