"""Made trades as uncompressed log batches in one file, made once, and brought into any codec for each run."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiokafka.codec import lz4_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from k2stream.records import HEADER
from k2stream.transport.batch_builder import CODECS, build_log_batch
from k2stream.transport.sink import Outgoing
from tests.bench.market import ENCODE_ROWS, PARTITIONS, full_batches, made_trades, place

ENCODERS = {"none": bytes, "lz4": lz4_encode, "zstd": zstd_encode}
LENGTH_AT, CRC_AT, ATTRIBUTES_AT = 8, 17, 21
TRANSACTIONAL = 0x10


@dataclass(frozen=True, slots=True)
class Stored:
    """One log batch in the file."""

    partition: int
    size_bytes: int
    records: int


@dataclass(frozen=True, slots=True)
class Producer:
    """Who a transactional log batch comes from."""

    id: int
    epoch: int


class Spool:
    """Log batches of `rows` trades in the order in which a feed would have sent them."""

    def __init__(self, path: Path, rows: int, schema_id: int) -> None:
        self._path = path
        self.value_bytes = 0
        """All values together, Confluent framing included."""
        self._stored: list[Stored] = []
        with path.open("wb") as file:
            for partition, records, raw in self._made(rows, schema_id):
                self._stored.append(Stored(partition, len(raw), records))
                file.write(raw)

    def _made(self, rows: int, schema_id: int) -> Iterator[tuple[int, int, bytes]]:
        waiting: dict[int, list[Outgoing]] = {p: [] for p in range(PARTITIONS)}
        for start in range(0, rows, ENCODE_ROWS):
            trades = made_trades(start, min(ENCODE_ROWS, rows - start))
            self.value_bytes += place(trades, schema_id, waiting)
            for partition, records in full_batches(waiting, is_last=start + ENCODE_ROWS >= rows):
                yield partition, len(records), build_log_batch(records, "none")

    def count(self, rows: int) -> int:
        """How many trades `batches(rows)` gives: whole log batches, so up to one more of them than asked for."""
        return sum(s.records for s in self._first(rows))

    def batches(self, rows: int) -> Iterator[tuple[int, int, bytes]]:
        """Partition, records and bytes of the first log batches, at least `rows` trades."""
        with self._path.open("rb") as file:
            for stored in self._first(rows):
                yield stored.partition, stored.records, file.read(stored.size_bytes)

    def _first(self, rows: int) -> Iterator[Stored]:
        left = rows
        for stored in self._stored:
            if left <= 0:
                return
            left -= stored.records
            yield stored


def recoded(raw: bytes, codec: str, producer: Producer, sequence: int) -> bytes:
    """The same records in another codec, as a transaction's log batch that begins at a producer's sequence number."""
    base, _, leader, magic, _, attributes, last_delta, first_ms, last_ms, _, _, _, count = HEADER.unpack_from(raw)
    payload = ENCODERS[codec](raw[HEADER.size :])
    kind = attributes & ~0x07 | CODECS[codec] | TRANSACTIONAL
    length = HEADER.size + len(payload) - LENGTH_AT - struct.calcsize(">i")
    fields = (base, length, leader, magic, 0, kind, last_delta, first_ms, last_ms, producer.id, producer.epoch, sequence, count)
    batch = bytearray(HEADER.pack(*fields) + payload)
    struct.pack_into(">I", batch, CRC_AT, calc_crc32c(bytes(batch[ATTRIBUTES_AT:])))
    return bytes(batch)
