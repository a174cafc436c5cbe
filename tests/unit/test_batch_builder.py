"""Log batches that we write are those that Kafka writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2stream.records import LogBatch
from k2stream.transport.batch_builder import CODECS, build_log_batch, is_intact, offsets_of
from k2stream.transport.sink import Outgoing

outgoing = st.builds(
    Outgoing,
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=200),
    timestamp_ms=st.integers(1, 1 << 42),
    headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
)


@given(st.lists(outgoing, min_size=1, max_size=20), st.sampled_from(sorted(CODECS)))
def test_records_come_back_as_they_went_in(records: list[Outgoing], codec: str) -> None:
    """Key, value, time and headers survive every codec; offsets are 0 to n-1; the checksum fits."""
    raw = build_log_batch(records, codec)
    read = list(LogBatch.parse("t", 0, raw).records())

    assert [(r.key, r.value, r.timestamp_ms, r.headers) for r in read] == [(o.key, o.value, o.timestamp_ms, o.headers) for o in records]
    assert [r.offset for r in read] == list(range(len(records)))
    assert offsets_of(raw) == len(records)
    assert is_intact(raw)


def test_placing_a_batch_keeps_its_checksum() -> None:
    """A log writes its own base offset into the first 8 bytes; nothing else changes."""
    raw = bytearray(build_log_batch([Outgoing(b"k", b"v", 1)]))
    raw[:8] = (12_345).to_bytes(8, "big")

    assert is_intact(bytes(raw))
    assert LogBatch.parse("t", 0, bytes(raw)).base_offset == 12_345


@pytest.mark.parametrize("at", [21, 40, 61, -1])
def test_flipped_bit_is_noticed(at: int) -> None:
    """Header or payload: the checksum tells."""
    raw = bytearray(build_log_batch([Outgoing(b"k", b"v" * 50, 1)]))
    raw[at] ^= 1

    assert not is_intact(bytes(raw))


@pytest.mark.parametrize("cut", [0, 10, 60, 61, -1])
def test_cut_batch_is_refused(cut: int) -> None:
    """What is not exactly one batch is never appended."""
    raw = build_log_batch([Outgoing(b"k", b"v", 1)])
    with pytest.raises(ValueError, match="log batch"):
        offsets_of(raw[:cut])
    with pytest.raises(ValueError, match="log batch"):
        offsets_of(raw + b"x")


def test_empty_batch_is_refused() -> None:
    """A batch without records would take no offset and never be read past."""
    with pytest.raises(ValueError, match="at least one"):
        build_log_batch([])
