"""Columns that come later: in the commit that brings their first rows, once, whoever races for it, and read by all."""

from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.audit import audit_lake
from k2stream.decode.added import column_type
from k2stream.decode.avro_type import Array, Enum, Fixed, Map, Plain
from k2stream.decode.avro_type import Decimal as Digits
from k2stream.errors import Fenced
from k2stream.lake.window import Window
from k2stream.query.engine import Engine
from k2stream.query.origin import keys_between, rows_of
from k2stream.query.questions import daily_bars, trades
from k2stream.records import TopicPartition
from k2stream.rows import TRADES
from k2stream.testing import CatalogThatCommitsThenFails, CatalogThatFailsBeforeCommitting, CatalogThatLosesTheRace
from tests.integration.conftest import Place
from tests.integration.lake_site import OTHER_TP, TP, LakeSite, soon, window
from tests.integration.upkeep_site import compaction

FEE = pa.decimal128(12, 3)


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **place)


def grown(number: int, first: int, end: int, kind: pa.DataType = FEE, name: str = "fee", *, tp: TopicPartition = TP, value: object = None) -> Window:
    """A window whose rows have one column more: the offset itself, unless a value is given."""
    plain = window(number, first, end, tp=tp)
    values = [offset if value is None else value for offset in range(first, end)]
    return replace(plain, rows=plain.rows.append_column(pa.field(name, kind), pa.array(values, kind)))


def by_offset(site: LakeSite, *names: str) -> dict[int, tuple[object, ...]]:
    rows = site.rows()
    return dict(zip(rows["offset"].to_pylist(), zip(*(rows[name].to_pylist() for name in names), strict=True), strict=True))


def test_a_column_comes_with_its_first_rows_in_one_snapshot(site: LakeSite) -> None:
    """Before the commit the table has no such column, after it rows and column; older rows and later ones without it are null."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 2)), soon())
    before = site.stranger()
    staged = worker.write(grown(2, 2, 4))
    assert site.stranger().metadata == before.metadata
    head = worker.commit(staged, soon())
    table = site.stranger()
    assert [f.name for f in table.schema().fields] == [*TRADES.names, "fee"]
    assert table.schema().find_field("fee").optional
    assert table.schema().find_field("fee").field_id == before.metadata.last_column_id + 1
    assert len(table.metadata.snapshots) == len(before.metadata.snapshots) + 1
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert (snapshot.schema_id, head.snapshot_id) == (table.schema().schema_id, snapshot.snapshot_id)
    again = site.worker()
    again.commit(again.write(window(3, 4, 5)), soon())
    again.commit(again.write(grown(4, 5, 6)), soon())
    assert by_offset(site, "fee") == {0: (None,), 1: (None,), 2: (Decimal(2),), 3: (Decimal(3),), 4: (None,), 5: (Decimal(5),)}
    assert len(site.stranger().metadata.schemas) == 2


@pytest.mark.parametrize("fault", [CatalogThatFailsBeforeCommitting, CatalogThatCommitsThenFails])
def test_a_commit_of_a_column_whose_answer_is_lost_lands_once(site: LakeSite, fault: type) -> None:
    """Landed behind an error or not landed at all: one column, one snapshot, the same files."""
    worker = site.started(lambda catalog: fault(catalog, status=500))
    worker.commit(worker.write(grown(1, 0, 3)), soon())
    assert by_offset(site, "fee") == {n: (Decimal(n),) for n in range(3)}
    assert (site.snapshots("window"), len(site.stranger().metadata.schemas)) == (1, 2)


def test_two_workers_that_add_the_same_column_at_once_share_it(site: LakeSite) -> None:
    """Both met the new schema in the same moment: one adds the column, the other finds its own id there and appends the files it has."""
    site.worker().register({OTHER_TP: 0}, soon())
    rival = site.worker()
    theirs = rival.write(grown(1, 0, 2, tp=OTHER_TP))
    worker = site.started(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.commit(theirs, soon())))
    staged = worker.write(grown(1, 10, 12, name="fee", value=7))
    staged = replace(staged, window=replace(staged.window, spans={TP: (0, 12)}))
    head = worker.commit(staged, soon())
    assert by_offset(site, "fee") == {0: (Decimal(0),), 1: (Decimal(1),), 10: (Decimal(7),), 11: (Decimal(7),)}
    assert {f.file_path for f in staged.files} <= {f.path for f in worker.files(head.snapshot_id)}


def test_two_workers_that_add_different_columns_at_once_never_share_an_id(site: LakeSite) -> None:
    """Both would take the next field id: whoever is later writes its rows again, and no value turns up under the other's name."""
    site.worker().register({OTHER_TP: 0}, soon())
    rival = site.worker()
    theirs = rival.write(grown(1, 0, 2, pa.int64(), "venue_sequence", tp=OTHER_TP))
    worker = site.started(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.commit(theirs, soon())))
    staged = replace(worker.write(grown(1, 10, 12, pa.int64(), value=7)), commit_id="mine")
    staged = replace(staged, window=replace(staged.window, spans={TP: (0, 12)}))
    head = worker.commit(staged, soon())
    assert "mine" in head.commit_ids
    expected: dict[int, tuple[object, ...]] = {0: (None, 0), 1: (None, 1), 10: (7, None), 11: (7, None)}
    assert by_offset(site, "fee", "venue_sequence") == expected
    with Engine.of(site.settings) as engine:
        for file in worker.files(head.snapshot_id):
            assert engine.ask("SELECT count(*) AS n FROM read_parquet($files)", files=[file])["n"][0].as_py() == 2


def test_a_worker_that_knows_no_new_column_commits_on(site: LakeSite) -> None:
    """Its files lack the column that another added meanwhile; nothing of the table is lost by it."""
    site.worker().register({OTHER_TP: 0}, soon())
    older, newer = site.started(), site.worker()
    staged = older.write(window(1, 0, 2))
    newer.commit(newer.write(grown(1, 0, 1, tp=OTHER_TP)), soon())
    older.commit(staged, soon())
    assert [f.name for f in site.stranger().schema().fields] == [*TRADES.names, "fee"]
    assert sorted(site.rows()["fee"].to_pylist(), key=str) == [Decimal(0), None, None]


def test_columns_widen_and_never_narrow(site: LakeSite) -> None:
    """int becomes long, float double, decimals get digits; narrower rows that come later are read as what the column is."""
    worker = site.started()
    kinds = [("n", pa.int32(), pa.int64()), ("x", pa.float32(), pa.float64()), ("d", pa.decimal128(9, 2), pa.decimal128(18, 2))]
    at = 0
    for name, narrow, wide in kinds:
        for kind in (narrow, wide, narrow):
            worker.commit(worker.write(grown(at + 1, at, at + 1, kind, name)), soon())
            at += 1
    schema = worker.columns()
    assert [schema.field(name).type for name, _, _ in kinds] == [wide for _, _, wide in kinds]
    found = by_offset(site, "n", "x", "d")
    assert [next(v for v in found[n] if v is not None) for n in range(9)] == list(range(9))


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.decimal128(12, 2), pa.list_(pa.field("element", FEE, nullable=False))])
def test_a_column_of_another_type_is_refused_and_nothing_changes(site: LakeSite, kind: pa.DataType) -> None:
    """The table's column cannot hold what the window brings: its records are read again, and are letters then."""
    worker = site.started()
    worker.commit(worker.write(grown(1, 0, 2)), soon())
    before = site.stranger().metadata
    value = {pa.string(): "x"}.get(kind, [Decimal(1)] if pa.types.is_list(kind) else 1)
    with pytest.raises(Fenced, match="fee"):
        worker.commit(worker.write(grown(2, 2, 3, kind, value=value)), soon())
    assert site.stranger().metadata == before


def test_what_a_decoder_makes_is_what_the_table_has(site: LakeSite) -> None:
    """Every type that a field may have comes back from the table as the same type, with the same value: nothing is refused twice over."""
    samples: list[tuple[object, object]] = [
        *(
            (Plain(name), value)
            for name, value in (("boolean", True), ("int", 1), ("long", 2**40), ("float", 0.5), ("double", 0.1), ("bytes", b"\0x"), ("string", "é"))
        ),
        (Digits(30, 10), Decimal("12345678901234567890.0123456789")),
        (Enum(("A", "B")), "B"),
        (Fixed(4), b"abcd"),
        (Plain("int", "date"), date(2026, 11, 21)),
        (Plain("long", "time-micros"), time(23, 59, 59, 999_999)),
        (Plain("long", "local-timestamp-micros"), None),
        (Plain("long", "timestamp-millis"), None),
        (Array(Plain("string")), ["a", ""]),
        (Array(Plain("double")), [0.5]),
        (Map(Plain("long")), [("a", 1)]),
    ]
    plain = window(1, 0, 1)
    rows = plain.rows
    for number, (kind, value) in enumerate(samples):
        t = column_type(kind)  # type: ignore[arg-type] # all of them are Avro types
        rows = rows.append_column(pa.field(f"c{number}", t), pa.array([value], t))
    worker = site.started()
    worker.commit(worker.write(replace(plain, rows=rows)), soon())
    assert {f.name: f.type for f in worker.columns()} == {f.name: f.type for f in rows.schema}
    found = site.rows().select([f"c{n}" for n in range(len(samples))]).to_pylist()[0]
    assert list(found.values()) == [value for _, value in samples]
    worker.commit(
        worker.write(replace(window(2, 1, 2), rows=rows.set_column(rows.schema.get_field_index("offset"), TRADES.field("offset"), pa.array([1])))), soon()
    )
    assert len(site.stranger().metadata.schemas) == 2


def test_queries_and_audit_read_files_of_both_shapes(site: LakeSite) -> None:
    """Look-ups by origin, answers and the recount give every row, whichever file comes first and whatever columns it has."""
    worker = site.started()
    shapes = [window(1, 0, 2), grown(2, 2, 4), grown(3, 4, 6, pa.string(), "venue", value="x"), window(4, 6, 8)]
    for one in shapes:
        head = worker.commit(worker.write(one), soon())
    assert head.snapshot_id is not None
    files = worker.files(head.snapshot_id)
    with Engine.of(site.settings) as engine:
        for some in (files, files[::-1]):
            assert rows_of(some, TP, 0, 8, engine=engine)["offset"].to_pylist() == list(range(8))
            assert keys_between(some, start_us=0, stop_us=2**62, engine=engine).num_rows == 8
            assert sorted(trades(engine, some, limit=99)["offset"].to_pylist()) == list(range(8))
            assert sum(daily_bars(engine, some)["trades"].to_pylist()) == 8
    report = audit_lake(site.settings)
    assert report.balanced, report


def test_files_of_both_shapes_are_merged_and_rolled_back(site: LakeSite) -> None:
    """Upkeep makes one file of them with every column, equal row by row; a table rolled back to before the column takes it again."""
    worker = site.started()
    for number in range(12):
        one = window(number, number, number + 1) if number % 3 else grown(number, number, number + 1)
        worker.commit(worker.write(one), soon())
    before = by_offset(site, "fee", "trade_id", "price")
    upkeep = compaction(site, worker)
    (job,) = upkeep.plan(is_whole=True)
    assert upkeep.run(job).has_landed
    assert by_offset(site, "fee", "trade_id", "price") == before
    oldest = site.stranger().metadata.snapshots[2].snapshot_id
    site.stranger().manage_snapshots().set_current_snapshot(snapshot_id=oldest).commit()
    again = site.worker()
    taken = again.head().vector[TP].next
    again.commit(again.write(grown(20, taken, taken + 1, value=9)), soon())
    assert by_offset(site, "fee")[taken] == (Decimal(9),)
    assert len(site.stranger().metadata.schemas) == 2
