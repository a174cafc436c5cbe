"""Spoiled log batches: what is put aside for a closer look is what is bad, and no more, so a bad record costs its neighbours little."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode import decoder as decoder_module
from k2stream.decode.avro_reader import BadBody, read_long
from k2stream.decode.avro_type import parse
from k2stream.decode.block import Block, BlockReader, open_block
from k2stream.decode.decoder import PATIENCE, Decoder
from k2stream.decode.framing import frame
from k2stream.decode.record_decoder import RecordDecoder, WriterSchemas
from k2stream.decode.sieve import passing
from k2stream.decode.split import MOST_SCHEMAS, split
from k2stream.decode.varint import padded, read_varints
from k2stream.records import LogBatch, Record
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Marker, Reject
from tests.properties.trade_records import TOPIC, a_trade, batch_of, body_of, log_batch

SCHEMA = avro_schema("trade_v2")
RECORDS = 200


class Schemas:
    """A registry that knows one schema."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return SCHEMA if schema_id == 1 else None


def value(n: int, **changed: Any) -> bytes:
    return frame(1, body_of(SCHEMA, a_trade(n, **changed)))


def is_passing(bodies: Iterable[bytes]) -> list[bool]:
    whole = list(bodies)
    ends = np.cumsum([len(b) for b in whole])
    return passing(padded(whole), ends - [len(b) for b in whole], ends, parse(SCHEMA)).tolist()


def changed(data: st.DataObject, body: bytes) -> bytes:
    """A few bits turned, bytes cut out or put in."""
    out = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(out) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip" if out:
                out[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del out[at : at + data.draw(st.integers(1, 40))]
            case _:
                out[at:at] = data.draw(st.binary(min_size=1, max_size=12))
    return bytes(out)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_body_that_passes_is_one_that_the_joined_read_proves(data: st.DataObject) -> None:
    """Whatever was done to its bytes: one that passes and is refused later would send all its neighbours one by one."""
    bodies = [changed(data, body_of(SCHEMA, a_trade(n))) for n in range(6)]
    schema = WriterSchemas("trade_v2", Schemas()).find(1)
    reader = Decoder("trade_v2", Schemas())._reader(1)
    assert isinstance(reader, BlockReader)
    for n, (body, passed) in enumerate(zip(bodies, is_passing(bodies), strict=True)):
        block = open_block(log_batch([frame(1, body)]))
        assert block is not None
        found = RecordDecoder(WriterSchemas("trade_v2", Schemas())).decode(Record(TOPIC, 0, n, 0, b"key", frame(1, body)))
        if passed:
            assert reader.read([block]) is not None, (schema, found)


def test_good_bodies_pass_and_odd_ones_wait_for_a_closer_look() -> None:
    """Letters beyond ASCII, many entries and numbers of many digits are good, and rare enough to be read one by one."""
    good = [a_trade(n) for n in range(20)] + [a_trade(1, vendor_data={str(n): "x" for n in range(7)}), a_trade(2, source_sequence=None, symbol="")]
    good += [a_trade(3, trade_id="x" * size) for size in (7, 8, 9, 16, 63, 64, 511, 512)]
    odd = [a_trade(1, trade_id=text) for text in ("x" * 7 + "é", "x" * 30 + "é", "x" * 513)]
    odd += [a_trade(1, symbol="é"), a_trade(2, trade_conditions=["x"] * 33), a_trade(3, price=Decimal(10**10 - 1))]
    assert is_passing(body_of(SCHEMA, t) for t in [*good, *odd]) == [True] * len(good) + [False] * len(odd)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_numbers_are_read_as_they_were_written(numbers: list[int]) -> None:
    """Of one to ten bytes, all at once."""
    written = [body_of({"type": "record", "name": "N", "fields": [{"name": "n", "type": "long"}]}, {"n": n}) for n in numbers]
    ends = np.cumsum([len(w) for w in written], dtype=np.int64)
    found, at, is_well = read_varints(padded(written), ends - np.array([len(w) for w in written], dtype=np.int64))
    assert (found.tolist(), at.tolist(), is_well.all()) == (numbers, ends.tolist(), True)


@given(st.lists(st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xFF]) | st.integers(0, 255), min_size=1, max_size=60).map(bytes))
def test_bytes_that_are_no_number_are_known_at_every_place(data: bytes) -> None:
    """Whatever lies there: the number and its end, or that there is none, or none as short as can be."""
    numbers, ends, is_well = read_varints(padded([data]), np.arange(len(data)))
    for at, (number, end, well) in enumerate(zip(numbers.tolist(), ends.tolist(), is_well.tolist(), strict=True)):
        try:
            expected = read_long(data + bytes(10), at)
        except BadBody:
            assert not well
            continue
        is_short = expected[1] == at + 1 or (data + bytes(10))[expected[1] - 1] != 0
        assert well == is_short
        if well:
            assert (number, end) == expected


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("spoiled", [None, b"", b"noise", value(3)[:-2], value(3) + b"\x00", frame(9, b"x"), value(3, side="SELL")[:5] + b"\xff" * 60])
def test_a_bad_record_is_looked_at_alone(spoiled: bytes | None, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value, no frame, cut, too long, of an unknown schema, a length bomb; at the beginning too. Its neighbours stay on the fast path."""
    values: list[bytes | None] = [value(n) for n in range(RECORDS)]
    values[0 if first else RECORDS // 2] = spoiled
    looked_at = looks(monkeypatch)
    decoded = Decoder("trade_v2", Schemas()).decode(batch_of(log_batch(values)))
    assert looked_at == [0 if first else RECORDS // 2]
    assert (decoded.rows.num_rows, len(decoded.rejects)) == (RECORDS - 1, 1)
    assert decoded.rows["offset"].to_pylist() == [n for n in range(RECORDS) if n not in looked_at]


def test_a_record_with_headers_among_plain_ones_is_looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replayed letter carries headers; what lies beside it does not pay for that."""
    records = [Outgoing(b"key", value(n), 1_700_000_000_000, (("h", b"1"),) if n == 7 else ()) for n in range(RECORDS)]
    looked_at = looks(monkeypatch)
    decoded = Decoder("trade_v2", Schemas()).decode(batch_of(LogBatch.parse(TOPIC, 0, build_log_batch(records))))
    assert (looked_at, decoded.rows.num_rows) == ([7], RECORDS)
    assert decoded.rows["offset"].to_pylist() == list(range(RECORDS))


def test_a_stream_that_was_odd_once_is_not_read_slowly_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the symbols are not ASCII and one record is bad: the good log batches that follow are read as they are."""
    odd: list[bytes | None] = [value(n, symbol="é" if n % 2 else "e") for n in range(RECORDS)]
    looked_at = looks(monkeypatch)
    decoder = Decoder("trade_v2", Schemas())
    decoder.decode(batch_of(log_batch([*odd[:-1], b"bad"])))
    assert len(looked_at) > 1
    looked_at.clear()
    assert decoder.decode(batch_of(log_batch(odd))).rows.num_rows == RECORDS
    assert looked_at == []


def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Offsets of the records that are decoded one by one from now on."""
    found: list[int] = []

    class Watched(RecordDecoder):
        def decode(self, record: Record) -> dict[str, Any] | Marker | Reject:
            found.append(record.offset)
            return super().decode(record)

    monkeypatch.setattr(decoder_module, "RecordDecoder", Watched)
    return found


def test_a_stream_with_some_odd_records_is_not_taken_apart_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in twenty is not ASCII, which is no fault: after the bad record's log batch the next is looked at once more, then read as it is."""
    odd: list[bytes | None] = [value(n, symbol="é" if n % 20 == 3 else "e") for n in range(RECORDS)]
    looked_at = looks(monkeypatch)
    decoder = Decoder("trade_v2", Schemas())
    decoder.decode(batch_of(log_batch([*odd[:-1], b"bad"])))
    decoder.decode(batch_of(log_batch(odd)))
    looked_at.clear()
    assert decoder.decode(batch_of(log_batch(odd))).rows.num_rows == RECORDS
    assert looked_at == []


def test_a_good_log_batch_between_bad_ones_makes_no_read_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some records are bad, a whole log batch is good now and then: the next is taken apart first all the same, until some time is over."""
    good: list[bytes | None] = [value(n) for n in range(RECORDS)]
    odd: list[bytes | None] = [*good[:-1], value(7, symbol="é")]
    read, outcomes = BlockReader.read, list[bool]()

    def watched(self: BlockReader, blocks: Sequence[Block]) -> list[pa.Array] | None:
        columns = read(self, blocks)
        outcomes.append(columns is not None)
        return columns

    monkeypatch.setattr(BlockReader, "read", watched)
    decoder = Decoder("trade_v2", Schemas())
    for values in ([*good[:-1], b"bad"], good, odd, [*good[:-1], b"bad"], *[good] * PATIENCE, [*good[:-1], b"bad"]):
        decoder.decode(batch_of(log_batch(values)))
    assert [n for n, is_read in enumerate(outcomes) if not is_read] == [0, len(outcomes) - 2]


def test_rows_beside_rejects_are_one_chunk() -> None:
    """What is refused leaves rows that every later stage takes in one pass, not one a log batch."""
    values: list[bytes | None] = [b"bad", *(value(n) for n in range(RECORDS))]
    decoded = Decoder("trade_v2", Schemas()).decode(batch_of(*(log_batch(values, n * len(values)) for n in range(4))))
    assert (decoded.rows["offset"].num_chunks, decoded.rows.num_rows, len(decoded.rejects)) == (1, 4 * RECORDS, 4)


def test_random_schema_ids_cost_no_more_than_their_records() -> None:
    """Noise names as many schemas as there are records; all but a few go the way of the unknown without being sorted by name."""
    values: list[bytes | None] = [b"\x00" + (1000 + n).to_bytes(4, "big") + b"x" for n in range(RECORDS)]
    block = open_block(log_batch(values))
    assert block is not None
    (parts,) = split([block])
    assert len(parts) == MOST_SCHEMAS + 1
    assert sum(part.count for part in parts) == RECORDS
    assert len(Decoder("trade_v2", Schemas()).decode(batch_of(log_batch(values))).rejects) == RECORDS


def test_records_that_all_have_headers_fail_no_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not plain, so they go one by one at once: no halving of a fetch that never can be read together."""
    reads: list[int] = []
    read = BlockReader.read
    monkeypatch.setattr(BlockReader, "read", lambda self, blocks: (reads.append(len(blocks)), read(self, blocks))[1])
    records = [Outgoing(b"key", value(n), 1_700_000_000_000, (("h", b"1"),)) for n in range(RECORDS)]
    raw = build_log_batch(records)
    decoded = Decoder("trade_v2", Schemas()).decode(batch_of(LogBatch.parse(TOPIC, 0, raw)))
    assert (decoded.rows.num_rows, reads) == (RECORDS, [1])
