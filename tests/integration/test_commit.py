"""The commit protocol on a real catalog and real files: whatever races, lies or dies, a window lands once or not at all."""

import itertools
import time
from pathlib import Path

import pytest

from k2stream.clock import Deadline
from k2stream.errors import CommitUnknown, Fenced, LakeError, Outraced, VectorMissing
from k2stream.lake.adopt import accept_loss
from k2stream.lake.offsets import Counts
from k2stream.testing import (
    A_TRADE,
    CatalogThatCommitsThenFails,
    CatalogThatFailsBeforeCommitting,
    CatalogThatGoesAway,
    CatalogThatLosesTheRace,
)
from tests.integration.conftest import Place
from tests.integration.lake_site import OTHER_TP, TP, LakeSite, soon, window

ANSWERS = pytest.mark.parametrize("status", [409, 500, None], ids=["conflict", "server error", "no answer"])


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **place)


def test_zombie_with_a_stale_vector_is_refused_and_changes_nothing(site: LakeSite) -> None:
    """A worker that lost its partitions while it slept finds them moved; table and ledger stay as the new owner left them."""
    zombie, owner = site.started(), site.worker()
    staged = zombie.write(window(1, 0, 5))
    owner.commit(owner.write(window(1, 0, 3)), soon())
    before = site.stranger().metadata
    with pytest.raises(Fenced, match=r"market.equities.trades.asx/0 expected 0 committed 3"):
        zombie.commit(staged, soon())
    assert site.stranger().metadata == before
    assert site.offsets() == [0, 1, 2]


def test_a_window_of_another_partition_is_not_fenced(site: LakeSite) -> None:
    """Two workers with partitions of their own both land, and each carries the other's entry on."""
    first, second = site.started(), site.worker()
    second.register({OTHER_TP: 7}, soon())
    staged = first.write(window(1, 0, 2))
    second.commit(second.write(window(1, 7, 9, tp=OTHER_TP)), soon())
    head = first.commit(staged, soon())
    assert {tp: (e.start, e.next, e.counts) for tp, e in head.vector.items()} == {
        TP: (0, 2, Counts(rows=2)),
        OTHER_TP: (7, 9, Counts(rows=2)),
    }


@ANSWERS
def test_a_commit_that_landed_behind_an_error_is_found_not_repeated(site: LakeSite, status: int | None) -> None:
    """The answer lied: one snapshot, no file deleted, and plain PyIceberg reads the table."""
    faults: list[CatalogThatCommitsThenFails] = []
    worker = site.started(lambda c: faults.append(CatalogThatCommitsThenFails(c, status=status)) or faults[0])
    staged = worker.write(window(1, 0, 4))
    written = site.files()
    head = worker.commit(staged, soon())
    assert head.vector[TP].next == 4
    assert (faults[0].commits, site.snapshots("window")) == (1, 1)
    assert written <= site.files()
    assert site.offsets() == [0, 1, 2, 3]


@ANSWERS
def test_a_commit_that_did_not_land_is_repeated_with_the_same_files(site: LakeSite, status: int | None) -> None:
    """The files of step 1 are committed as they are, once; nothing is decided or written twice."""
    faults: list[CatalogThatFailsBeforeCommitting] = []
    worker = site.started(lambda c: faults.append(CatalogThatFailsBeforeCommitting(c, status=status, times=2)) or faults[0])
    staged = worker.write(window(1, 0, 4))
    head = worker.commit(staged, soon())
    assert (faults[0].commits, site.snapshots("window")) == (3, 1)
    assert [f.path for f in worker.files(head.snapshot_id)] == [f.file_path for f in staged.files]
    assert site.offsets() == [0, 1, 2, 3]


def test_a_lost_race_against_another_partition_is_repeated(site: LakeSite) -> None:
    """Somebody commits between our look and our commit: the head required is gone, the fence still holds, both land."""
    site.worker().register({OTHER_TP: 0}, soon())
    rival = site.worker()
    worker = site.started(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.commit(rival.write(window(1, 0, 2, tp=OTHER_TP)), soon())))
    head = worker.commit(worker.write(window(1, 0, 3)), soon())
    assert {tp: e.next for tp, e in head.vector.items()} == {TP: 3, OTHER_TP: 2}
    assert site.offsets() == [0, 0, 1, 1, 2]


def test_a_lost_race_for_the_same_partition_fences(site: LakeSite) -> None:
    """Two owners of one partition after a rebalance: the second to commit is refused, no row lands twice."""
    rival = site.worker()
    worker = site.started(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.commit(rival.write(window(1, 0, 3)), soon())))
    with pytest.raises(Fenced):
        worker.commit(worker.write(window(1, 0, 3)), soon())
    assert site.offsets() == [0, 1, 2]


def test_a_writer_that_loses_every_race_says_so_and_nothing_else(site: LakeSite) -> None:
    """Other partitions' windows land before ours each time, until the deadline: not landed, nothing broken, and it lands afterwards."""
    site.worker().register({OTHER_TP: 0}, soon())
    rival, at = site.worker(), itertools.count()

    def overtake() -> None:
        number = next(at)
        rival.commit(rival.write(window(number + 1, number, number + 1, tp=OTHER_TP)), soon())

    worker = site.started(lambda c: CatalogThatLosesTheRace(c, other=overtake, times=1_000))
    staged = worker.write(window(1, 0, 3))
    with pytest.raises(Outraced, match="K2_WINDOW_MS"):
        worker.commit(staged, Deadline.after(1.0))
    assert worker.committers()["trades"].conflicts == next(at) > 1
    assert site.offsets() == list(range(worker.committers()["trades"].conflicts))


@pytest.mark.parametrize("is_landed", [True, False], ids=["landed", "not landed"])
def test_an_outcome_that_nobody_tells_is_unknown_and_deletes_nothing(site: LakeSite, is_landed: bool) -> None:
    """The catalog goes away at the worst moment: CommitUnknown at the deadline; trying again afterwards lands once."""
    faults: list[CatalogThatGoesAway] = []
    worker = site.started(lambda c: faults.append(CatalogThatGoesAway(c, is_landed=is_landed)) or faults[0])
    staged = worker.write(window(1, 0, 4))
    written, started = site.files(), time.monotonic()
    with pytest.raises(CommitUnknown):
        worker.commit(staged, Deadline.after(0.3))
    assert time.monotonic() - started < 3
    assert written <= site.files()
    faults[0].revive()
    worker.commit(staged, soon())
    assert site.snapshots("window") == 1
    assert site.offsets() == [0, 1, 2, 3]


def test_a_catalog_that_refuses_to_the_end_is_one_sentence(site: LakeSite) -> None:
    """Known not to have landed, so not CommitUnknown; the next try has the same files."""
    worker = site.started(lambda c: CatalogThatFailsBeforeCommitting(c, status=None, times=1000))
    with pytest.raises(LakeError, match=r"^Cannot commit at \w+.trades: .*does not answer") as caught:
        worker.commit(worker.write(window(1, 0, 4)), Deadline.after(0.3))
    assert not isinstance(caught.value, CommitUnknown)
    assert caught.value.is_retriable


def test_a_window_that_waited_too_long_is_read_again(tmp_path: Path, place: Place) -> None:
    """Upkeep may have taken its files for orphans: it is fenced before the catalog is asked."""
    site = LakeSite(tmp_path, orphan_age_ms=40, **place)
    worker = site.started()
    staged = worker.write(window(1, 0, 4))
    time.sleep(0.05)
    with pytest.raises(Fenced, match="K2_ORPHAN_AGE_MS"):
        worker.commit(staged, soon())
    assert site.offsets() == []


def test_a_window_without_rows_moves_the_vector(site: LakeSite) -> None:
    """Duplicates and letters are done with, too: `next` and ledger advance though no file is added."""
    worker = site.started()
    empty = window(1, 0, 0)
    empty = type(empty)(1, empty.rows, empty.events, {TP: Counts(duplicates=3, dead_letters=1)}, {TP: (0, 4)})
    head = worker.commit(worker.write(empty), soon())
    assert (head.vector[TP].next, head.vector[TP].counts.offsets) == (4, 4)
    assert site.offsets() == []


def test_a_start_is_committed_once_and_never_moved(site: LakeSite) -> None:
    """The second worker's idea of a start changes nothing: the fence has one value."""
    site.worker().register({TP: 3}, soon())
    head = site.worker().register({TP: 9, OTHER_TP: 1}, soon())
    assert {tp: (e.start, e.next) for tp, e in head.vector.items()} == {TP: (3, 3), OTHER_TP: (1, 1)}
    assert site.worker().register({TP: 0}, soon()).snapshot_id == head.snapshot_id


def test_a_foreign_append_on_top_carries_the_vector_on(site: LakeSite) -> None:
    """Somebody appends with plain PyIceberg: the vector of the snapshot below still holds, their rows stay."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 2)), soon())
    site.stranger().add_files([site.write("foreign.parquet", window(1, 0, 2).rows)])
    assert not worker.head().has_own_vector
    head = worker.commit(worker.write(window(2, 2, 4)), soon())
    assert head.has_own_vector
    assert site.offsets() == [0, 0, 1, 1, 2, 3]


def test_a_foreign_append_and_expiry_never_mean_a_first_start(site: LakeSite) -> None:
    """History without a vector is refused, nothing is read again from the beginning; `k2 adopt` mends it."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3)), soon())
    _forget_vectors(site)
    before = site.stranger().metadata
    for attempt in (worker.head, lambda: worker.register({TP: 0}, soon()), lambda: worker.commit(worker.write(window(2, 3, 4)), soon())):
        with pytest.raises(VectorMissing, match="k2 adopt"):
            attempt()
    assert site.stranger().metadata == before


def test_adopt_takes_the_vector_from_the_rows_and_begins_a_new_count(site: LakeSite) -> None:
    """`start = next` after the last row of each partition, ledger zero; then windows land again."""
    worker = site.started()
    worker.register({OTHER_TP: 0}, soon())
    worker.commit(worker.write(window(1, 0, 3)), soon())
    worker.commit(worker.write(window(2, 0, 8, tp=OTHER_TP)), soon())
    _forget_vectors(site)
    head = worker.adopt(soon())
    assert {tp: (e.start, e.next, e.counts) for tp, e in head.vector.items()} == {TP: (3, 3, Counts()), OTHER_TP: (8, 8, Counts())}
    worker.commit(worker.write(window(3, 3, 5)), soon())
    assert worker.head().vector[TP].counts == Counts(rows=2)


def test_an_adopted_table_knows_its_newest_trade(site: LakeSite) -> None:
    """Without it a worker would take the table for one that never had a row, and let its duplicates in."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3)), soon())
    _forget_vectors(site)
    assert worker.adopt(soon()).watermark_us == A_TRADE["timestamp"]


def test_lost_offsets_are_accepted_only_where_the_log_begins_later(site: LakeSite) -> None:
    """The partition that lost some begins a new count after them; the other keeps its own."""
    worker = site.started()
    worker.register({OTHER_TP: 0}, soon())
    worker.commit(worker.write(window(1, 0, 3)), soon())
    given_up = accept_loss(site.settings, "trades", {TP: 10, OTHER_TP: 0}, soon())
    assert given_up == {TP: (3, 9)}
    vector = site.worker().head().vector
    assert (vector[TP].start, vector[TP].next, vector[TP].counts) == (10, 10, Counts())
    assert (vector[OTHER_TP].start, vector[OTHER_TP].next) == (0, 0)
    assert accept_loss(site.settings, "trades", {TP: 10, OTHER_TP: 0}, soon()) == {}


def test_adopt_refuses_a_table_that_has_its_vector(site: LakeSite) -> None:
    """Pressing it once too often must not throw a ledger away."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3)), soon())
    with pytest.raises(LakeError, match="nothing to adopt"):
        worker.adopt(soon())


def test_adopt_refuses_a_table_without_rows(site: LakeSite) -> None:
    """An empty foreign history says nothing of offsets."""
    worker = site.worker()
    stranger = site.stranger()
    stranger.append(window(1, 0, 0).rows)
    with pytest.raises(LakeError, match="no row"):
        worker.adopt(soon())


def test_rolling_the_table_back_moves_the_vector_back(site: LakeSite) -> None:
    """The older snapshot is the table: a worker at the old end is fenced, one at the vector refills it, each event once."""
    worker = site.started()
    kept = worker.commit(worker.write(window(1, 0, 3, events=["a"])), soon())
    worker.commit(worker.write(window(2, 3, 6, events=["b"])), soon())
    assert worker.take_outbox(soon()) == 2
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    assert worker.head().vector[TP].next == 3
    with pytest.raises(Fenced):
        worker.commit(worker.write(window(3, 6, 9)), soon())
    worker.commit(worker.write(window(4, 3, 7, events=["b", "c"])), soon())
    assert worker.take_outbox(soon()) == 1
    assert site.offsets() == [0, 1, 2, 3, 4, 5, 6]
    assert site.event_ids() == ["a", "b", "c"]


def _forget_vectors(site: LakeSite) -> None:
    """A foreign writer appends nothing and lets go of every other snapshot."""
    stranger = site.stranger()
    stranger.append(window(0, 0, 0).rows)
    stranger.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in stranger.metadata.snapshots[:-1]]).commit()
