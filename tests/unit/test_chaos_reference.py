"""What a chaos run says must be in the tables: every record of its load known again from the log, and every difference seen."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.chaos.check import compare_rows
from k2stream.chaos.reference import Reference
from k2stream.chaos.trades import TradeMaker, names_on
from k2stream.errors import K2Error
from k2stream.feed.publisher import partition_of
from k2stream.lake.offsets import Entry, Vector
from k2stream.query.engine import Engine
from k2stream.records import Record, TopicPartition
from k2stream.testing import ParquetTable
from k2stream.transport.sink import Outgoing

TOPIC, EXCHANGE, PARTITIONS = "market.crypto.trades.chaos1", "CHAOS1", 4


def maker() -> TradeMaker:
    return TradeMaker(EXCHANGE, prefix="chaos-1", partitions=PARTITIONS, schema_id=1, seed=7, now_us=1_700_000_000_000_000)


def reference(made: TradeMaker) -> Reference:
    return Reference(made, TOPIC, exchange=EXCHANGE, partitions=PARTITIONS, small_rows=10)


def as_log(published: list[Outgoing]) -> Iterator[Record]:
    """The records as a log holds them."""
    nexts = [0] * PARTITIONS
    for outgoing in published:
        partition = partition_of(outgoing.key or b"", PARTITIONS)
        yield Record(TOPIC, partition, nexts[partition], outgoing.timestamp_ms, outgoing.key, outgoing.value, outgoing.headers)
        nexts[partition] += 1


def all_of(reference: Reference) -> Vector:
    return {tp: Entry(0, lane.next) for tp, lane in reference.lanes.items()}


def test_the_load_has_every_trouble_and_is_known_again() -> None:
    """Rows, duplicates, letters and markers add up to the log; a trouble that never comes would prove nothing."""
    made = maker()
    published = [record for _ in range(100) for record in made.take(200, 1)]
    known = reference(made)
    known.take(as_log(published))
    lanes = known.lanes.values()
    rows, duplicates, letters, markers = (sum(len(getattr(lane, name)) for lane in lanes) for name in ("offsets", "duplicates", "letters", "markers"))
    assert rows + duplicates + letters + markers == len(published)
    assert min(duplicates, letters, markers) > 20
    assert {event["kind"] for lane in lanes for event in lane.events} >= {"opened", "filled", "reset"}
    assert len({event["cause"] for lane in lanes for event in lane.events}) >= 3
    assert len(known.letters(all_of(known))) == letters


def test_the_same_seed_makes_the_same_load() -> None:
    """A run that found something must be repeatable."""
    assert maker().take(2_000, 1) == maker().take(2_000, 1)


def test_every_partition_has_its_symbols() -> None:
    """A partition without a record would never be missed."""
    assert {partition_of(name.encode(), 8) for name in names_on(8)} == set(range(8))


def test_a_log_of_somebody_else_is_refused() -> None:
    """A record out of place, or of another writer, makes every comparison worthless."""
    made = maker()
    log = list(as_log(made.take(200, 1)))
    with pytest.raises(K2Error, match="was expected"):
        reference(made).take([*log[:50], *log[100:]])
    with pytest.raises(K2Error, match="did not publish"):
        reference(made).take([Record(TOPIC, 0, 0, 1, b"C1", b"\x00somebody else's record, of some length, with other ids", ())])


def rows_of(reference: Reference) -> pa.Table:
    return reference.rows(all_of(reference))


def test_a_table_is_compared_row_by_row_and_column_by_column(tmp_path: Path) -> None:
    """Equal in any order; a lost row, one that stands twice and one that differs in one column are each found."""
    made = maker()
    known = reference(made)
    known.take(as_log(made.take(2_000, 1)))
    expected = rows_of(known)
    price = expected.schema.get_field_index("price")
    other = expected.slice(0, 1).set_column(price, "price", expected["price"].slice(1, 1))
    cases = {
        "equal": ([expected.slice(1000), expected.slice(0, 1000)], (0, 0)),
        "lost": ([expected.slice(3)], (3, 0)),
        "twice": ([expected, expected.slice(5, 1)], (0, 1)),
        "differs": ([other, expected.slice(1)], (1, 1)),
    }
    with Engine() as engine:
        for name, (parts, (lost, extra)) in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            table = ParquetTable(folder)
            for part in parts:
                table.add(part)
            difference = compare_rows(engine, table.files(table.snapshot_id), expected)
            assert (difference.lost.num_rows, difference.extra.num_rows) == (lost, extra), name
            assert len(list(difference.sentences())) == (lost > 0) + (extra > 0), name


def test_a_reference_ends_where_the_snapshot_does() -> None:
    """The log is ahead of the table: what is not committed yet is not lost."""
    made = maker()
    known = reference(made)
    known.take(as_log(made.take(1_000, 1)))
    tp = TopicPartition(TOPIC, 0)
    half = known.lanes[tp].next // 2
    rows = known.rows({tp: Entry(0, half)})
    assert set(rows["partition"].to_pylist()) == {0}
    assert max(rows["offset"].to_pylist()) < half
    counts = known.lanes[tp].counts(half)
    assert counts.offsets == half
    assert counts.rows == rows.num_rows
