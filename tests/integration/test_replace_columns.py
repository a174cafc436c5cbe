"""Columns that writers add to reference data: in the commit that brings their first rows, once, whoever races, lies or dies, exact in every row."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import DecimalType, StringType

from k2stream.errors import Fenced
from k2stream.instruments.merge import KEPT
from k2stream.lake.offsets import Counts
from k2stream.lake.replace import InstrumentsLake
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from k2stream.rows import joined
from k2stream.testing import CatalogThatCommitsThenFails, CatalogThatFailsBeforeCommitting
from tables.lake.instruments import BUCKETS
from tests.integration.conftest import Place
from tests.integration.lake_site import LakeSite, soon
from tests.integration.test_replace import OTHER, TP, Died, lake, put, window

FEE = pa.decimal128(12, 3)
TAGS = pa.list_(pa.field("element", pa.string(), nullable=False))
LIMITS = pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False))


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    return started(LakeSite(tmp_path))


@pytest.fixture
def anywhere(tmp_path: Path, place: Place) -> LakeSite:
    """On each kind of catalog and store."""
    return started(LakeSite(tmp_path, **place))


def started(site: LakeSite) -> LakeSite:
    lake(site).register({TP: 0, OTHER: 0}, soon())
    return site


def grown(
    first: int, said: Sequence[dict[str, object]], kind: pa.DataType = FEE, name: str = "fee", *, values: Sequence[object], tp: TopicPartition = TP
) -> Window:
    """A window whose records have one column more."""
    plain = window(first, said, tp=tp)
    return replace(plain, rows=plain.rows.append_column(pa.field(name, kind), pa.array(values, kind)))


def put_grown(table: InstrumentsLake, first: int, said: Sequence[dict[str, object]], kind: pa.DataType = FEE, name: str = "fee", **of: Any) -> None:
    table.commit(table.write(grown(first, said, kind, name, **of)), soon())


def values_of(site: LakeSite, *names: str) -> dict[str, tuple[object, ...]]:
    """By company; fails if one stands twice."""
    rows = site.rows("instruments").to_pylist()
    assert len({(r["exchange"], r["company_id"]) for r in rows}) == len(rows)
    return {f"{r['exchange']}/{r['company_id']}": tuple(r[name] for name in names) for r in rows}


def test_a_column_comes_with_its_first_rows_in_one_snapshot(site: LakeSite) -> None:
    """Into parts that held rows and parts that did not: older rows and companies of other parts read null, and no metadata changes before."""
    table = lake(site)
    put(table, 0, [{"company_id": str(n)} for n in range(100)])
    before = site.stranger("instruments").metadata
    staged = table.write(grown(100, [{"company_id": "7"}, {"company_id": "new"}], values=[Decimal("0.125"), None]))
    assert site.stranger("instruments").metadata == before
    table.commit(staged, soon())
    after = site.stranger("instruments")
    assert [f.name for f in after.schema().fields] == [*KEPT.names, "fee"]
    assert (after.schema().find_field("fee").field_id, len(after.metadata.snapshots)) == (before.last_column_id + 1, len(before.snapshots) + 1)
    snapshot = after.current_snapshot()
    assert snapshot is not None
    assert snapshot.schema_id == after.schema().schema_id
    found = values_of(site, "fee")
    assert (len(found), found.pop("ASX/7"), set(found.values())) == (101, (Decimal("0.125"),), {(None,)})
    assert table.columns().field("fee").type == FEE


def test_three_versions_in_one_window_and_over_many(site: LakeSite) -> None:
    """A replaced row has what its newest writer said, an ended one what it had, and whoever shares their file keeps every value."""
    company = [str(n) for n in range(60)]
    table = lake(site)
    fees = [Decimal(n) for n in range(20)]
    one, two = window(0, [{"company_id": c} for c in company[:20]]), grown(20, [{"company_id": c} for c in company[20:40]], values=fees)
    three = grown(40, [{"company_id": c} for c in company[40:]], values=fees)
    three = replace(three, rows=three.rows.append_column("tags", pa.array([[c, "x"] for c in company[40:]], TAGS)))
    rows = joined([one.rows, two.rows, three.rows])
    table.commit(table.write(replace(one, rows=rows, deltas={TP: Counts(rows=60)}, spans={TP: (0, 60)})), soon())
    expected: dict[str, tuple[object, ...]] = {f"ASX/{c}": (None, None) for c in company[:20]}
    expected |= {f"ASX/{c}": (Decimal(n), None) for n, c in enumerate(company[20:40])}
    expected |= {f"ASX/{c}": (Decimal(n), [c, "x"]) for n, c in enumerate(company[40:])}
    assert values_of(site, "fee", "tags") == expected
    table = lake(site)
    put(table, 60, [{"company_id": "41"}, {"company_id": "42", "end": 1}])
    put_grown(table, 62, [{"company_id": "1"}, {"company_id": "43"}], values=[Decimal("0.001"), None])
    put_grown(lake(site), 64, [{"company_id": "2"}], LIMITS, "limits", values=[[("up", 5)]])
    expected |= {"ASX/41": (None, None), "ASX/1": (Decimal("0.001"), None), "ASX/43": (None, None), "ASX/2": (None, None)}
    assert values_of(site, "fee", "tags") == expected
    assert {c for c, (limits,) in values_of(site, "limits").items() if limits} == {"ASX/2"}


def test_columns_widen_and_never_narrow(site: LakeSite) -> None:
    """int becomes long, float double, decimals get digits, in files of before too; narrower records that come later are as wide as the column."""
    table, at = lake(site), 0
    kinds = [("n", pa.int32(), pa.int64()), ("x", pa.float32(), pa.float64()), ("d", pa.decimal128(9, 2), pa.decimal128(18, 2))]
    for name, narrow, wide in kinds:
        for kind in (narrow, wide, narrow):
            put_grown(table, at, [{"company_id": f"{name}{at}"}], kind, name, values=[at])
            at += 1
    assert [table.columns().field(name).type for name, _, _ in kinds] == [wide for _, _, wide in kinds]
    found = values_of(site, "n", "x", "d")
    assert sorted(value for row in found.values() for value in row if value is not None) == list(range(9))  # type: ignore[type-var] # numbers


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.decimal128(12, 2), TAGS])
def test_a_column_of_another_type_is_refused_and_nothing_changes(site: LakeSite, kind: pa.DataType) -> None:
    """The table's column cannot hold what the window brings: its records are read again, and are letters then."""
    table = lake(site)
    put_grown(table, 0, [{}], values=[Decimal(1)])
    before = site.stranger("instruments").metadata
    value = {pa.string(): "x", TAGS: ["x"]}.get(kind, 1)
    with pytest.raises(Fenced, match="fee"):
        put_grown(table, 1, [{}], kind, values=[value])
    assert site.stranger("instruments").metadata == before


def test_a_column_that_a_rival_added_with_another_type_is_known_once_the_fence_was_met(site: LakeSite) -> None:
    """What decodes the records again must find it among the table's columns, or they would be fenced for ever."""
    table, rival = lake(site), lake(site)
    staged = table.write(grown(0, [{}], values=[Decimal(1)]))
    put_grown(rival, 0, [{}], pa.string(), values=["x"], tp=OTHER)
    assert "fee" not in table.columns().names
    with pytest.raises(Fenced, match="fee"):
        table.commit(staged, soon())
    assert table.columns().field("fee").type == pa.string()
    put(table, 0, [{}])
    assert values_of(site, "fee") == {"ASX/7078": (None,), "NSX/7078": ("x",)}


EVERY_TYPE: dict[str, tuple[pa.DataType, object]] = {
    "boolean": (pa.bool_(), True),
    "int": (pa.int32(), -1),
    "float": (pa.float32(), 0.5),
    "bytes": (pa.binary(), b"\0x"),
    "word": (pa.string(), "\N{LATIN SMALL LETTER E WITH ACUTE}"),
    "decimal": (pa.decimal128(38, 10), Decimal("1234567890123456789012345678.0123456789")),
    "fixed": (pa.binary(4), b"abcd"),
    "day": (pa.date32(), date(2026, 11, 21)),
    "clock": (pa.time64("us"), time(23, 59, 59, 999_999)),
    "moment": (pa.timestamp("us", tz="UTC"), datetime(2026, 11, 21, tzinfo=UTC)),
    "local": (pa.timestamp("us"), datetime(2026, 11, 21)),  # noqa: DTZ001 - it has no zone
    "tags": (TAGS, ["a", ""]),
    "limits": (LIMITS, [("up", 5)]),
}


def test_values_of_every_type_stand_through_replacements_of_their_neighbours(site: LakeSite) -> None:
    """Rows of one part, each with a column that no other has: merged again and again, every value is what it was, and null elsewhere."""
    same = [{"company_id": company} for company in one_bucket(len(EVERY_TYPE))]
    table = lake(site)
    for at, (said, (name, (kind, value))) in enumerate(zip(same, EVERY_TYPE.items(), strict=True)):
        put_grown(table, at, [said], kind, name, values=[value])
    found = site.rows("instruments").sort_by("offset").to_pylist()
    assert [{name: row[name] for name in EVERY_TYPE} for row in found] == [
        {name: value if name == own else None for name, (_, value) in EVERY_TYPE.items()} for own in EVERY_TYPE
    ]
    assert len(table.files(table.head().snapshot_id or 0)) == 1
    assert {name: table.columns().field(name).type for name in EVERY_TYPE} == {name: kind for name, (kind, _) in EVERY_TYPE.items()}


def one_bucket(count: int) -> list[str]:
    """Companies that lie in one part of the table."""
    bucket_of = BucketTransform(BUCKETS).transform(StringType())
    return [str(n) for n in range(count * BUCKETS * 4) if bucket_of(str(n)) == 0][:count]


@pytest.mark.parametrize(("kind", "name", "theirs"), [(FEE, "fee", Decimal(2)), (pa.string(), "sector", "mines")])
def test_a_rival_that_adds_a_column_at_once_costs_an_attempt_and_mixes_no_values(anywhere: LakeSite, kind: pa.DataType, name: str, theirs: object) -> None:
    """The same column is shared; another one, which got the field id that ours would have had, keeps its values for itself."""
    site = anywhere
    rival, raced = lake(site), list[str]()
    put(rival, 0, [{"company_id": "a"}], tp=OTHER)

    def race(step: str) -> None:
        if step == "3.before" and not raced:
            raced.append(step)
            put_grown(rival, 1, [{"company_id": "a"}], kind, name, values=[theirs], tp=OTHER)

    table = lake(site, on_step=race)
    put_grown(table, 0, [{"company_id": "a"}, {"company_id": "b"}], values=[Decimal(1), None])
    assert raced
    assert values_of(site, "fee") == {"ASX/a": (Decimal(1),), "ASX/b": (None,), "NSX/a": (theirs if name == "fee" else None,)}
    assert values_of(site, name)["NSX/a"] == (theirs,)
    assert table.committers()["instruments"].conflicts == 1


def test_a_stranger_that_adds_a_column_without_a_snapshot_does_not_get_our_values(site: LakeSite) -> None:
    """By hand, between our look and our commit: the head is still the same, and the next field id is no longer ours."""
    altered: list[str] = []

    def alter(step: str) -> None:
        if step == "3.before" and not altered:
            altered.append(step)
            with site.stranger("instruments").update_schema() as update:
                update.add_column("note", DecimalType(12, 3))

    put(lake(site), 0, [{"company_id": "b"}])
    put_grown(lake(site, on_step=alter), 1, [{"company_id": "a"}, {"company_id": "b"}], values=[Decimal(1), Decimal(2)])
    assert altered
    assert values_of(site, "fee", "note") == {"ASX/a": (Decimal(1), None), "ASX/b": (Decimal(2), None)}


def test_a_rival_that_knows_no_new_column_keeps_its_values(site: LakeSite) -> None:
    """It replaces a part whose rows have a column that its own head did not know when it began."""
    older, newer = lake(site), lake(site)
    staged = older.write(window(0, [{"company_id": "a", "company_name": "of the older"}]))
    put_grown(newer, 0, [{"company_id": "a"}], values=[Decimal(2)], tp=OTHER)
    older.commit(staged, soon())
    put(older, 1, [{"company_id": "b"}])
    assert values_of(site, "fee") == {"ASX/a": (None,), "ASX/b": (None,), "NSX/a": (Decimal(2),)}


@pytest.mark.parametrize("fault", [CatalogThatFailsBeforeCommitting, CatalogThatCommitsThenFails])
def test_a_commit_of_a_column_whose_answer_is_lost_lands_once(site: LakeSite, fault: type) -> None:
    """Landed behind an error or not landed at all: one column, every row once."""
    put(lake(site), 0, [{}])
    table = lake(site, lambda catalog: fault(catalog, status=500))
    put_grown(table, 1, [{}, {"company_id": "other"}], values=[Decimal(1), Decimal(2)])
    assert values_of(site, "fee") == {"ASX/7078": (Decimal(1),), "ASX/other": (Decimal(2),)}
    assert len(site.stranger("instruments").metadata.schemas) == 2


@pytest.mark.parametrize("step", ["1.fsync", "2.head", "2.merged", "3.before", "3.after"])
def test_a_death_around_the_commit_of_a_column_leaves_the_old_table_or_the_new(site: LakeSite, step: str) -> None:
    """Whoever comes next goes on from the vector, and ends with the same rows, one column and the same count."""

    def die(heard: str) -> None:
        if heard == step:
            raise Died(step)

    put(lake(site), 0, [{"company_name": "old"}, {"company_id": "other"}])
    said: list[dict[str, object]] = [{"company_name": "new"}, {"company_id": "third"}]
    with pytest.raises(Died):
        put_grown(lake(site, on_step=die), 2, said, values=[Decimal(1), Decimal(2)])
    heir = lake(site)
    if heir.head().vector[TP].next == 2:
        put_grown(heir, 2, said, values=[Decimal(1), Decimal(2)])
    assert values_of(site, "company_name", "fee")["ASX/7078"] == ("new", Decimal(1))
    assert values_of(site, "fee") == {"ASX/7078": (Decimal(1),), "ASX/other": (None,), "ASX/third": (Decimal(2),)}
    assert (len(site.stranger("instruments").metadata.schemas), heir.head().vector[TP].counts) == (2, Counts(rows=4, retired=1))


def test_a_look_up_reads_columns_that_came_after_it_saw_the_table(site: LakeSite) -> None:
    """Files of every age have all columns: null in those of before, the values in those of after."""
    reader, writer = lake(site), lake(site)
    put(writer, 0, [{"company_id": "a"}, {"company_id": "c"}])
    reader.head()
    put_grown(writer, 2, [{"company_id": "b"}], values=[Decimal(1)])
    assert reader.names_of_columns() == KEPT.names
    rows = joined([reader.read(file) for file in writer.files(writer.head().snapshot_id or 0)])
    assert dict(zip(rows["company_id"].to_pylist(), rows["fee"].to_pylist(), strict=True)) == {"a": None, "b": Decimal(1), "c": None}
    assert reader.names_of_columns() == [*KEPT.names, "fee"]


def test_a_table_rolled_back_to_before_a_column_takes_it_again(site: LakeSite) -> None:
    """The topic is read again from the older vector; the column is there already, and one only."""
    table = lake(site)
    put(table, 0, [{"company_id": "a"}])
    then = table.head().snapshot_id or 0
    put_grown(table, 1, [{"company_id": "a"}], values=[Decimal(1)])
    stranger = site.stranger("instruments")
    stranger.manage_snapshots().set_current_snapshot(snapshot_id=then).commit()
    assert values_of(site, "fee") == {"ASX/a": (None,)}
    put_grown(lake(site), 1, [{"company_id": "a"}], values=[Decimal(1)])
    assert values_of(site, "fee") == {"ASX/a": (Decimal(1),)}
    assert len(site.stranger("instruments").metadata.schemas) == 2
