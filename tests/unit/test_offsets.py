"""The offset vector: as text and back, and what the fence says of it."""

import base64
import zlib
from random import Random

import pytest

from k2stream.lake.offsets import Counts, Entry, Mark, Stale, advanced, pack, stale_partitions, unpack
from k2stream.records import TopicPartition

ASX = TopicPartition("market.equities.trades.asx", 0)
BINANCE = TopicPartition("market.crypto.trades.binance", 3)


def test_an_empty_vector_is_not_an_absent_one() -> None:
    """A table whose partitions are all new still carries a vector."""
    assert unpack(pack({})) == {}


def test_packing_keeps_every_number() -> None:
    """Ledger, start, next and the tracker file come back as they were."""
    vector = {
        ASX: Entry(5, 1 << 40, Counts(1, 2, 3, 4, 5, 6), "file:/a/ü.tracker", Mark((1 << 40) - 900, 0xFFFF_FFFF)),
        BINANCE: Entry(0, 0),
    }
    assert unpack(pack(vector)) == vector


def test_160_partitions_stay_small_in_every_snapshot() -> None:
    """A summary is rewritten with every commit, 50 times over: 160 entries must not cost what JSON would (8.8 kB)."""
    random = Random(1)
    vector = {}
    for p in range(160):
        next_offset = 10**9 + 977 * p
        mark = Mark(next_offset - random.randrange(1, 4_000), random.getrandbits(32))
        vector[TopicPartition("market.crypto.trades.binance", p)] = Entry(0, next_offset, Counts(rows=next_offset - 3, duplicates=3), mark=mark)
    assert len(pack(vector)) < 3_000


FORMAT_1 = "eNqLNtQx0olWSlTSUUpSigWyKpRiY7kYGBmYWRmUGRgYWBmYGViAmJGB4T8DNjAoRAF2Qg2B"


def test_a_vector_from_before_marks_is_read_on() -> None:
    """An update of k2stream must not take a table for one without a vector, nor its topics for made anew."""
    assert unpack(FORMAT_1) == {TopicPartition("a", 0): Entry(5, 40, Counts(20, 5, 3, 4, 3, 1), "x"), TopicPartition("b", 3): Entry(0, 0)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"not json\n")).decode(),
        base64.b64encode(zlib.compress(b'[3,0,[],[]]\n')).decode(),
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


def test_a_window_without_records_keeps_the_mark() -> None:
    """A log batch that is committed stays committed: control batches and holes have no checksum to go by."""
    vector = {ASX: Entry(0, 10, Counts(rows=10), mark=Mark(7, 1)), BINANCE: Entry(0, 10, Counts(rows=10), mark=Mark(7, 1))}
    after = advanced(vector, {ASX: (10, 15), BINANCE: (10, 12)}, {}, {BINANCE: Mark(11, 2)})
    assert (after[ASX].mark, after[BINANCE].mark) == (Mark(7, 1), Mark(11, 2))
