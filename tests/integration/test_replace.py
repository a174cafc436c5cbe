"""The table of instruments under the commit protocol: replaced in small parts, once, whoever races, lies or dies; nothing is left twice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from k2stream.errors import Fenced
from k2stream.gaps import EVENTS
from k2stream.lake.catalog import open_catalog
from k2stream.lake.declared import declared_by
from k2stream.lake.offsets import Counts
from k2stream.lake.replace import InstrumentsLake
from k2stream.lake.table import no_step
from k2stream.lake.window import Window
from k2stream.records import TopicPartition
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.instruments import INSTRUMENTS
from tests.integration.lake_site import LakeSite, soon
from tests.unit.test_merge import TOPIC, changes

TP = TopicPartition(TOPIC, 0)
OTHER = TopicPartition("market.equities.reference_data.nsx", 0)


def lake(site: LakeSite, fault: Callable[[Catalog], object] | None = None, *, on_step: Callable[[str], None] = no_step) -> InstrumentsLake:
    catalog: Any = open_catalog(site.settings)
    site.opened.append(catalog)
    opened = InstrumentsLake.open(site.settings, INSTRUMENTS, GAPS, DEAD_LETTERS, catalog=fault(catalog) if fault else catalog, on_step=on_step)
    assert isinstance(opened, InstrumentsLake)
    return opened


def window(first: int, said: Sequence[dict[str, object]], *, tp: TopicPartition = TP, number: int = 1) -> Window:
    """Records of consecutive offsets; their exchange is the topic's."""
    exchange = tp.topic.rpartition(".")[2].upper()
    rows = changes([{"exchange": exchange, "topic": tp.topic, **record, "offset": first + n} for n, record in enumerate(said)])
    return Window(
        number=number, rows=rows, events=EVENTS.empty_table(), deltas={tp: Counts(rows=len(said))}, spans={tp: (first, first + len(said))}
    )


def put(table: InstrumentsLake, first: int, said: Sequence[dict[str, object]], *, tp: TopicPartition = TP) -> None:
    table.commit(table.write(window(first, said, tp=tp)), soon())


def names(site: LakeSite) -> dict[str, str]:
    """Company -> name; fails if one stands twice."""
    rows = site.rows("instruments").to_pylist()
    assert len({(r["exchange"], r["company_id"]) for r in rows}) == len(rows)
    return {f"{r['exchange']}/{r['company_id']}": r["company_name"] for r in rows}


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    made = LakeSite(tmp_path)
    lake(made).register({TP: 0, OTHER: 0}, soon())
    return made


def test_a_change_replaces_its_row_and_the_ledger_counts_it(site: LakeSite) -> None:
    """rows - retired is what the table holds, by the record that each row comes from."""
    table = lake(site)
    put(table, 0, [{"company_id": str(n), "company_name": "old"} for n in range(100)])
    put(table, 100, [{"company_id": "7", "company_name": "new"}, {"company_id": "8", "end": 1}, {"company_id": "nobody", "end": 1}])
    counts = table.head().vector[TP].counts
    assert (counts.rows, counts.retired) == (103, 3)
    assert (len(names(site)), names(site)["ASX/7"]) == (100, "new")


def test_only_parts_that_change_get_new_files(site: LakeSite) -> None:
    """One company changes: one file goes, one comes, all others stay as they are."""
    table = lake(site)
    put(table, 0, [{"company_id": str(n)} for n in range(1_000)])
    before = {f.path for f in table.files(table.head().snapshot_id or 0)}
    put(table, 1_000, [{"company_id": "7", "company_name": "new"}])
    after = {f.path for f in table.files(table.head().snapshot_id or 0)}
    assert (len(before - after), len(after - before)) == (1, 1)


def test_a_snapshot_of_before_still_says_what_was_known(site: LakeSite) -> None:
    """History is in the snapshots."""
    table = lake(site)
    put(table, 0, [{"company_name": "old"}])
    then = table.head().snapshot_id
    put(table, 1, [{"company_name": "new"}])
    assert site.stranger("instruments").scan(snapshot_id=then).to_arrow()["company_name"].to_pylist() == ["old"]


def test_another_topic_that_was_faster_costs_an_attempt_and_nothing_else(site: LakeSite) -> None:
    """Two workers read two venues: the one whose head moved merges on the new head, and both changes stand."""
    one, two = lake(site), lake(site)
    put(one, 0, [{"company_id": "a"}])
    staged = two.write(window(0, [{"company_id": "a", "company_name": "of the other"}], tp=OTHER))
    raced: list[str] = []

    def race(step: str) -> None:
        if step == "3.before" and not raced:
            raced.append(step)
            put(one, 1, [{"company_id": "b"}])

    two = lake(site, on_step=race)
    two.commit(staged, soon())
    assert raced
    assert set(names(site)) == {"ASX/a", "ASX/b", "NSX/a"}
    assert two.committers()["instruments"].conflicts == 1


def test_a_zombie_is_fenced(site: LakeSite) -> None:
    """Its window begins where the table no longer is: nothing of it lands."""
    zombie, heir = lake(site), lake(site)
    staged = zombie.write(window(0, [{"company_name": "of the zombie"}]))
    put(heir, 0, [{"company_name": "of the heir"}, {"company_name": "newest"}])
    with pytest.raises(Fenced):
        zombie.commit(staged, soon())
    assert names(site) == {"ASX/7078": "newest"}


@pytest.mark.parametrize("lie", [CommitStateUnknownException, CommitFailedException, OSError])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_commit_behind_an_error_lands_once(site: LakeSite, monkeypatch: pytest.MonkeyPatch, lie: type[Exception], is_before: bool) -> None:
    """Whatever the catalog says: the look decides, and the rows stand once."""
    table = lake(site)
    put(table, 0, [{"company_name": "old"}])
    real, lies = table.catalog.commit_table, [lie("the network")]

    def commit(*arguments: Any) -> object:
        if lies and is_before:
            raise lies.pop()
        done = real(*arguments)
        if lies:
            raise lies.pop()
        return done

    monkeypatch.setattr(table.catalog, "commit_table", commit)
    put(table, 1, [{"company_name": "new"}])
    assert not lies
    assert names(site) == {"ASX/7078": "new"}
    assert table.head().vector[TP].counts == Counts(rows=2, retired=1)


def test_upkeep_knows_how_the_table_is_cut(site: LakeSite) -> None:
    """What rewrites files reads the declaration off the table itself."""
    found, declared = declared_by(site.stranger("instruments")), INSTRUMENTS
    assert (found.partition_by, found.buckets, found.sort_by, found.day_of) == (declared.partition_by, declared.buckets, declared.sort_by, None)


def test_rows_of_before_an_adoption_are_replaced_and_not_counted(site: LakeSite) -> None:
    """The new count begins with nothing, so what goes of the old rows is no part of it."""
    table = lake(site)
    put(table, 0, [{"company_name": "old"}, {"company_id": "other"}])
    stranger = site.stranger("instruments")
    stranger.append(stranger.scan().to_arrow().slice(0, 0))
    expired = site.stranger("instruments")
    for snapshot in expired.metadata.snapshots[:-1]:
        expired.maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
    adopted = lake(site)
    adopted.adopt(soon())
    assert adopted.head().vector[TP].start == 2
    put(adopted, 2, [{"company_name": "new"}])
    assert adopted.head().vector[TP].counts == Counts(rows=1, retired=0)
    assert names(site) == {"ASX/7078": "new", "ASX/other": "BHP BILLITON LTD"}


class Died(Exception):
    """The worker of this test."""


@pytest.mark.parametrize("step", ["1.fsync", "2.head", "2.merged", "3.before", "3.after"])
def test_a_death_between_two_steps_leaves_the_old_table_or_the_new(site: LakeSite, step: str) -> None:
    """Whoever comes next goes on from the vector, and ends with the same rows and the same count."""

    def die(heard: str) -> None:
        if heard == step:
            raise Died(step)

    put(lake(site), 0, [{"company_name": "old"}, {"company_id": "other"}])
    said: list[dict[str, object]] = [{"company_name": "new"}, {"company_id": "other", "end": 1_000_000}]
    dying = lake(site, on_step=die)
    with pytest.raises(Died):
        put(dying, 2, said)
    heir = lake(site)
    if heir.head().vector[TP].next == 2:
        put(heir, 2, said)
    rows = {r["company_id"]: r for r in site.rows("instruments").to_pylist()}
    assert (len(rows), rows["7078"]["company_name"], rows["other"]["is_active"]) == (2, "new", False)
    assert heir.head().vector[TP].counts == Counts(rows=4, retired=2)


def test_the_same_records_again_after_a_rollback_give_the_same_table(site: LakeSite) -> None:
    """The topic is read again from the older vector; that it was compacted meanwhile changes nothing."""
    table = lake(site)
    put(table, 0, [{"company_id": "a", "company_name": "1"}])
    then = table.head().snapshot_id or 0
    put(table, 1, [{"company_id": "a", "company_name": "2"}, {"company_id": "b"}, {"company_id": "a", "company_name": "3"}])
    expected, stranger = names(site), site.stranger("instruments")
    stranger.manage_snapshots().set_current_snapshot(snapshot_id=then).commit()
    assert names(site) == {"ASX/a": "1"}
    put(lake(site), 1, [{"company_id": "a", "company_name": "2"}, {"company_id": "b"}, {"company_id": "a", "company_name": "3"}])
    assert names(site) == expected
