"""What leaves aiokafka's fetcher for our consumer: trimming, holes, checksums, and the private code it rests on."""

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import aiokafka
import aiokafka.consumer.fetcher as fetcher_module
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedForMessageFormatError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.records import HEADER, Kind, LogBatch
from k2stream.transport.fetch import PartitionLogBatches, RawBatches, replace_unpacking

TP = TopicPartition("market.equities.trades.asx", 3)
ABORT, COMMIT = b"\x00\x00\x00\x00", b"\x00\x00\x00\x01"

RELIED_ON = {
    "version": "0.14.0",
    "Fetcher._proc_fetch_request": "59bf948fff47eed5",
    "FetchResult": "d7db13f06de8248c",
    "PartitionRecords": "94aa0da0dbec8d1b",
}
"""Private code of aiokafka that k2stream/transport/fetch.py was written against: SHA-256 of its source, first 16 digits."""


def log_batch(base: int, records: int, *, span: int = 0, producer: int = -1, control: bytes = b"", codec: int = 0, transactional: bool = False) -> bytes:
    """One batch as a broker stores it: `records` records in `span` offsets from `base` on (the rest compacted away)."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional or bool(control)), producer, 0, 0, 1 << 20)
    for delta in range(records):
        builder.append(delta, 1_700_000_000_000 + delta, control or f"k{base + delta}".encode(), b"v", [])
    raw = bytearray(builder.build())
    if control or span > records or not records:
        attributes = int.from_bytes(raw[21:23], "big") | (0x20 if control else 0)
        raw[21:23] = attributes.to_bytes(2, "big")
        raw[23:27] = (max(span, 1) - 1).to_bytes(4, "big", signed=True)
    raw[17:21] = checksum(bytes(raw[21:])).to_bytes(4, "big")
    raw[0:8] = base.to_bytes(8, "big")
    return bytes(raw)


def checksum(data: bytes) -> int:
    """CRC-32C, as the batch header holds it."""
    return int(calc_crc32c(data))


def fetched(data: bytes, position: int, *, aborted: Sequence[tuple[int, int]] = (), isolation: int = READ_COMMITTED) -> list[LogBatch]:
    """What one fetch response at `position` delivers."""
    return list(PartitionLogBatches(TP, RawBatches(data), list(aborted), position, None, None, True, isolation))


def kinds(batches: Sequence[LogBatch]) -> list[tuple[Kind, int, int]]:
    """(kind, first offset asked for, last offset) of each."""
    return [(b.kind, b.from_offset, b.last_offset) for b in batches]


def test_whole_batches_come_out_byte_for_byte() -> None:
    """What Kafka wrote is what an agent gets, cut at the right places."""
    first, second = log_batch(100, 5), log_batch(105, 3, codec=3)
    batches = fetched(first + second, 100)

    assert [bytes(b.raw) for b in batches] == [first, second]
    assert [(b.base_offset, b.last_offset, b.count, b.codec) for b in batches] == [(100, 104, 5, 0), (105, 107, 3, 3)]
    assert [r.offset for b in batches for r in b.records()] == list(range(100, 108))


def test_seek_into_a_batch_does_not_give_its_head_twice() -> None:
    """Brokers return the whole batch that holds the position; rows below it are not asked for again."""
    (batch,) = fetched(log_batch(100, 10), 104)

    assert (batch.base_offset, batch.from_offset) == (100, 104)
    assert [r.offset for r in batch.records()] == list(range(104, 110))


def test_batch_below_the_position_is_left_out() -> None:
    """A batch that ends below the position brings nothing at all."""
    assert kinds(fetched(log_batch(100, 5) + log_batch(105, 5), 105)) == [(Kind.DATA, 105, 109)]


def test_control_batch_is_a_hole() -> None:
    """A commit marker takes an offset and no row: the ledger must hear of it."""
    data = log_batch(0, 2, producer=7, transactional=True) + log_batch(2, 1, producer=7, control=COMMIT) + log_batch(3, 1)
    assert kinds(fetched(data, 0)) == [(Kind.DATA, 0, 1), (Kind.CONTROL, 2, 2), (Kind.DATA, 3, 3)]


def test_aborted_transaction_is_a_hole_and_its_neighbours_are_not() -> None:
    """Two producers interleaved: only the aborted one's records vanish, and only up to its abort marker."""
    data = b"".join(
        [
            log_batch(0, 2, producer=7, transactional=True),
            log_batch(2, 2, producer=8, transactional=True),
            log_batch(4, 1),
            log_batch(5, 1, producer=7, control=ABORT),
            log_batch(6, 1, producer=8, control=COMMIT),
            log_batch(7, 2, producer=7, transactional=True),
            log_batch(9, 1, producer=7, control=COMMIT),
        ]
    )
    expected = [Kind.ABORTED, Kind.DATA, Kind.DATA, Kind.CONTROL, Kind.CONTROL, Kind.DATA, Kind.CONTROL]

    assert [b.kind for b in fetched(data, 0, aborted=[(7, 0)])] == expected
    assert fetched(data, 0, aborted=[(7, 0)], isolation=READ_UNCOMMITTED)[0].kind is Kind.DATA


def test_jump_between_batches_is_a_hole() -> None:
    """Offsets that the cleaner removed are reported, before the first batch as between two."""
    data = log_batch(10, 2) + log_batch(15, 1)
    expected = [(Kind.COMPACTED, 4, 9), (Kind.DATA, 10, 11), (Kind.COMPACTED, 12, 14), (Kind.DATA, 15, 15)]

    assert kinds(fetched(data, 4)) == expected


def test_emptied_batch_is_a_hole() -> None:
    """The cleaner keeps a batch without records for its producer's sequence."""
    assert kinds(fetched(log_batch(5, 0, span=4), 5)) == [(Kind.COMPACTED, 5, 8)]


def test_cut_off_batch_is_left_for_the_next_fetch() -> None:
    """A response may end in the middle of a batch."""
    data = log_batch(0, 3) + log_batch(3, 3)
    assert kinds(fetched(data[:-1], 0)) == [(Kind.DATA, 0, 2)]


def test_flipped_bit_is_refused_after_the_good_batches() -> None:
    """A broken batch is never delivered, and never costs those before it."""
    good, broken = log_batch(0, 3), bytearray(log_batch(3, 3))
    broken[-1] ^= 1

    assert kinds(fetched(good + bytes(broken), 0)) == [(Kind.DATA, 0, 2)]
    with pytest.raises(CorruptRecordException, match="offset 3"):
        fetched(good + bytes(broken), 3)


def test_old_message_format_is_refused_by_name() -> None:
    """A batch of format 0 or 1 has no header to read: say so instead of guessing."""
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1000)
    builder.append(0, timestamp=1, key=b"k", value=b"v")
    with pytest.raises(UnsupportedForMessageFormatError, match="format 1"):
        fetched(bytes(builder.build()), 0)


@dataclass(frozen=True, slots=True)
class Stored:
    """One batch of a drawn log, with what it should come out as."""

    raw: bytes
    base: int
    last: int
    kind: Kind
    offsets: tuple[int, ...]


@st.composite
def logs(draw: st.DrawFn) -> list[Stored]:
    """A log of data, emptied and control batches, some compacted inside, with jumps between them."""
    stored: list[Stored] = []
    offset = draw(st.integers(0, 50))
    for _ in range(draw(st.integers(1, 8))):
        offset += draw(st.sampled_from([0, 0, 0, 1, 7]))
        kind = draw(st.sampled_from([Kind.DATA, Kind.DATA, Kind.DATA, Kind.CONTROL, Kind.COMPACTED]))
        records = draw(st.integers(1, 6)) if kind is Kind.DATA else 0
        span = records + draw(st.sampled_from([0, 0, 3])) if kind is Kind.DATA else 1
        raw = log_batch(offset, 1, producer=9, control=COMMIT) if kind is Kind.CONTROL else log_batch(offset, records, span=span)
        stored.append(Stored(raw, offset, offset + span - 1, kind, tuple(range(offset, offset + records))))
        offset += span
    return stored


@settings(max_examples=200, deadline=None)
@given(logs(), st.data())
def test_every_offset_comes_once_from_any_position(log: list[Stored], data: st.DataObject) -> None:
    """From any position on, offsets are covered without a jump or an overlap, and records are exactly those at or above it."""
    position = data.draw(st.integers(max(0, log[0].base - 3), log[-1].last))
    in_reach = [s for s in log if s.last >= position]

    batches = fetched(b"".join(s.raw for s in in_reach), position)

    expected = position
    for batch in batches:
        assert batch.from_offset == expected
        expected = batch.last_offset + 1
    assert expected == log[-1].last + 1
    assert [r.offset for b in batches for r in b.records()] == [o for s in in_reach for o in s.offsets if o >= position]
    assert [b.kind for b in batches if b.kind is Kind.CONTROL] == [s.kind for s in in_reach if s.kind is Kind.CONTROL]


@settings(max_examples=100, deadline=None)
@given(logs())
def test_position_when_left_halfway_is_where_the_next_fetch_must_begin(log: list[Stored]) -> None:
    """aiokafka may leave the iterator after any batch; nothing is skipped then."""
    data = b"".join(s.raw for s in log)
    reader = PartitionLogBatches(TP, RawBatches(data), [], log[0].base, None, None, True, READ_COMMITTED)
    for batch in reader:
        assert reader.next_fetch_offset == batch.last_offset + 1


class ResponselessFetcher(Fetcher):
    """A fetcher that was never started: enough to look at which method it has."""

    def __init__(self) -> None:
        pass


def unpack(fetcher: Fetcher, topic: str, data: bytes) -> list[object]:
    """What the fetcher's own method would make of a response."""
    names = fetcher._proc_fetch_request.__globals__
    return list(names["PartitionRecords"](TopicPartition(topic, 0), names["MemoryRecords"](data), [], 0, None, None, True, READ_COMMITTED))


def test_per_event_topics_keep_their_records() -> None:
    """Control and reply topics beside batch topics in one consumer come record by record."""
    fetcher = ResponselessFetcher()
    replace_unpacking(fetcher, lambda topic: topic == "batches")

    assert [type(r).__name__ for r in unpack(fetcher, "batches", log_batch(0, 2))] == ["LogBatch"]
    assert [type(r).__name__ for r in unpack(fetcher, "events", log_batch(0, 2))] == ["ConsumerRecord"] * 2


def test_other_consumers_of_the_process_are_left_alone() -> None:
    """The names are replaced for one fetcher; the module keeps aiokafka's own."""
    replace_unpacking(ResponselessFetcher(), lambda topic: True)

    assert fetcher_module.PartitionRecords is PartitionRecords
    assert fetcher_module.MemoryRecords is MemoryRecords
    assert ResponselessFetcher()._proc_fetch_request.__globals__ is vars(fetcher_module)


def fingerprint() -> dict[str, str]:
    """The private code as installed."""
    code = {"Fetcher._proc_fetch_request": Fetcher._proc_fetch_request, "FetchResult": FetchResult, "PartitionRecords": PartitionRecords}
    digests = {name: hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16] for name, thing in code.items()}
    return {"version": aiokafka.__version__} | digests


def test_aiokafka_is_the_one_this_was_written_for() -> None:
    """A changed fetcher may skip or repeat rows in silence: read its new source, mend transport/fetch.py, then change the fingerprint."""
    assert fingerprint() == RELIED_ON


def test_header_layout_is_that_of_the_builder() -> None:
    """The offsets that fetch.py and LogBatch read from a header are those that aiokafka writes."""
    raw = log_batch(42, 3)
    assert HEADER.unpack_from(raw)[0] == 42
    assert HEADER.unpack_from(raw)[12] == 3
    assert HEADER.unpack_from(raw)[4] == LogBatch.parse("t", 0, raw).crc
