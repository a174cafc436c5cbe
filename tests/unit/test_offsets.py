"""The offset vector: as text and back, and what the fence says of it."""

import base64
import zlib

import pytest

from k2stream.lake.offsets import Counts, Entry, Stale, advanced, pack, stale_partitions, unpack
from k2stream.records import TopicPartition

ASX = TopicPartition("market.equities.trades.asx", 0)
BINANCE = TopicPartition("market.crypto.trades.binance", 3)


def test_an_empty_vector_is_not_an_absent_one() -> None:
    """A table whose partitions are all new still carries a vector."""
    assert unpack(pack({})) == {}


def test_packing_keeps_every_number() -> None:
    """Ledger, start, next and the tracker file come back as they were."""
    vector = {
        ASX: Entry(5, 1 << 40, Counts(1, 2, 3, 4, 5, 6), "file:/a/ü.tracker"),
        BINANCE: Entry(0, 0),
    }
    assert unpack(pack(vector)) == vector


def test_160_partitions_stay_small_in_every_snapshot() -> None:
    """A summary is rewritten with every commit, 50 times over: 160 entries must not cost what JSON would (8.8 kB)."""
    vector = {TopicPartition("market.crypto.trades.binance", p): Entry(0, 10**9 + 977 * p, Counts(rows=10**9 + 977 * p - 3, duplicates=3)) for p in range(160)}
    assert len(pack(vector)) < 2_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"not json\n")).decode(),
        base64.b64encode(zlib.compress(b'[2,0,[],[]]\n')).decode(),
        base64.b64encode(zlib.compress(b'[1,1,["t"],[]]\nshort')).decode(),
    ],
)
def test_damage_and_later_formats_are_refused_not_guessed(text: str) -> None:
    """An unreadable vector is never an empty one: that would read every topic again from its start."""
    with pytest.raises(ValueError, match="not an offset vector"):
        unpack(text)


def test_the_fence_names_who_moved() -> None:
    """A zombie learns partition by partition what it expected and what is committed."""
    vector = {ASX: Entry(0, 10)}
    assert stale_partitions(vector, {ASX: (10, 20)}) == []
    assert stale_partitions(vector, {ASX: (5, 20), BINANCE: (0, 3)}) == [Stale(ASX, 5, 10), Stale(BINANCE, 0, None)]


def test_a_window_leaves_other_partitions_alone() -> None:
    """What another worker committed between two windows of ours is carried on."""
    vector = {ASX: Entry(0, 10, Counts(rows=10)), BINANCE: Entry(2, 7, Counts(rows=4, holes=1), "x")}
    after = advanced(vector, {ASX: (10, 15)}, {ASX: Counts(rows=3, duplicates=2)})
    assert after == {ASX: Entry(0, 15, Counts(rows=13, duplicates=2)), BINANCE: vector[BINANCE]}
