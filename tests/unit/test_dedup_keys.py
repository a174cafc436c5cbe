"""Keys of trades: what must be equal is, what must differ does, and the values never change."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2stream.dedup.keys import dedup_keys

IDS = ["", "a", "a\0", "12345678", "123456789", "ASX-20100310-BHP-000000001", "é" * 7, "x" * 96, "x" * 97, "y" * 1000, "z"]
PINNED = [
    "8c95f496527a64d7ae5df428c6d5d7db",
    "2a1473c7d187b6ca51c9015f5a3deae9",
    "fa29d83602e06f8f37d2c310a4ecc288",
    "2b277bd09711603b0f1dcb27cf528839",
]


def column(values: Sequence[str], *, encoded: bool = False) -> pa.ChunkedArray:
    array = pa.array(values, pa.string())
    return pa.chunked_array([array.dictionary_encode() if encoded else array])


def keys_of(ids: pa.ChunkedArray, exchange: str = "ASX", symbol: str = "BHP") -> np.ndarray:
    return dedup_keys(column([exchange] * len(ids), encoded=True), column([symbol] * len(ids), encoded=True), ids)


def test_chunking_encoding_and_slices_do_not_change_a_key() -> None:
    """The same trade has the same key in whatever Arrow layout it arrives."""
    expected = keys_of(column(IDS))
    array = pa.array(IDS, pa.string())
    layouts = [
        pa.chunked_array([array[:3], array[3:4], array[4:4], array[4:]]),
        pa.chunked_array([pa.concat_arrays([pa.array(["noise", "é"]), array, pa.array(["more"])])[2:-1]]),
        pa.chunked_array([array.dictionary_encode()]),
        pa.chunked_array([pa.concat_arrays([pa.array(["n"]), array]).dictionary_encode()[1:]]),
        pa.chunked_array([array.cast(pa.large_string())]),
        pa.chunked_array([array[:5].dictionary_encode(), array[5:].dictionary_encode()]),
    ]
    for ids in layouts:
        np.testing.assert_array_equal(keys_of(ids), expected)
    plain = dedup_keys(column(["ASX"] * len(IDS)), column(["BHP"] * len(IDS)), column(IDS))
    np.testing.assert_array_equal(plain, expected)


def test_a_key_does_not_depend_on_its_neighbours() -> None:
    """A row alone hashes as it does among longer and shorter ids, also where the buffer ends with the text."""
    together = keys_of(column(IDS))
    for row, text in enumerate(IDS):
        data = text.encode()
        offsets = np.array([0, len(data)], np.int32)
        tight = pa.StringArray.from_buffers(1, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data))
        np.testing.assert_array_equal(keys_of(pa.chunked_array([tight]))[0], together[row])


def test_pinned_values() -> None:
    """Keys are stored between runs: a changed value would let every stored duplicate through."""
    keys = keys_of(column(["", "a", "ASX-20100310-BHP-000000001", "x" * 200]))
    assert [f"{a:016x}{b:016x}" for a, b in keys.tolist()] == PINNED


def test_a_million_ids_do_not_collide() -> None:
    """Counting ids, the usual case, have neither equal keys nor equal first or second halves."""
    n = 1_000_000
    ids = pc.binary_join_element_wise("ASX-20100310-BHP-", pa.array(range(n)).cast(pa.string()), "")
    keys = keys_of(pa.chunked_array([ids]))
    assert len(np.unique(keys[:, 0])) == n
    assert len(np.unique(keys[:, 1])) == n


def test_exchange_symbol_and_id_are_told_apart() -> None:
    """Moving text from one part to another, or swapping parts, makes another trade."""
    parts = [("A", "BC", "D"), ("AB", "C", "D"), ("A", "B", "CD"), ("BC", "A", "D"), ("D", "A", "BC"), ("A", "D", "BC"), ("A", "A", "A")]
    keys = np.concatenate([dedup_keys(column([e]), column([s]), column([t])) for e, s, t in parts])
    assert len(np.unique(keys[:, 0])) == len(np.unique(keys[:, 1])) == len(parts)


@pytest.mark.parametrize("text", ["ASX-20100310-BHP-000000001", "k" * 120])
def test_one_changed_bit_changes_half_of_the_key(text: str) -> None:
    """Every bit of the id reaches every bit of the key with a probability near one half."""
    data = text.encode()
    changed = [bytes(b ^ (1 << bit) if i == at else b for i, b in enumerate(data)).decode() for at in range(len(data)) for bit in range(7)]
    base, others = keys_of(column([text])), keys_of(column(changed))
    bits = np.unpackbits((others ^ base).view(np.uint8), axis=1).mean(axis=1)
    assert 0.47 < bits.mean() < 0.53
    assert bits.min() > 0.25


def test_a_null_is_refused() -> None:
    """Rows without an id must not all become one trade in silence."""
    with pytest.raises(ValueError, match="nulls"):
        dedup_keys(column(["A"]), column(["B"]), pa.chunked_array([pa.array([None], pa.string())]))


def test_no_rows_make_no_keys() -> None:
    """An empty batch, with or without a chunk, is not a special case for the caller."""
    empty = pa.chunked_array([], pa.string())
    assert dedup_keys(empty, empty, empty).shape == (0, 2)
    assert keys_of(column([])).shape == (0, 2)
