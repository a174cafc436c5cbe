"""Many small files become few large ones while others write, and no row is more, less or other than it was."""

import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyiceberg.types import StringType

from k2stream.errors import LakeError, VectorMissing
from k2stream.lake.offsets import Counts
from k2stream.lake.overwrite import prepare_overwrite
from k2stream.lake.summary import KIND
from k2stream.testing import CatalogThatCommitsThenFails, CatalogThatLosesTheRace
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window
from tests.integration.upkeep_site import LIMITS, compaction, filled, sorted_rows


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **place)


def live(site: LakeSite, name: str = "trades") -> list[str]:
    return [task.file.file_path for task in site.stranger(name).scan().plan_files()]


def test_compaction_keeps_every_row_and_all_that_a_head_carries(site: LakeSite) -> None:
    """Rows, vector, ledger, watermark, group and tracker files are as before; the files are one, sorted, and nothing was deleted."""
    worker = filled(site, 20)
    worker.commit(worker.write(window(21, 60, 63, tracker=b"state")), soon())
    before, head, files = sorted_rows(site), worker.head(), live(site)
    upkeep = compaction(site, worker)
    (job,) = upkeep.plan(is_whole=True)
    done = upkeep.run(job)
    assert done.has_landed
    assert live(site) == list(done.outputs)
    assert sorted_rows(site).equals(before)
    assert all(site.exists(file) for file in files)
    after = worker.head()
    assert (after.carried, after.has_own_vector) == (head.carried, True)
    keys = list(zip(*(site.parquet(done.outputs[0])[1][name].to_pylist() for name in ("symbol", "timestamp")), strict=True))
    assert keys == sorted(keys)


def test_a_swap_does_not_copy_the_metadata_at_each_look(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fifty snapshots the copies take longer than a window, and whoever writes windows is faster each time."""
    worker, copies = filled(site, 3), list[str]()
    monkeypatch.setattr("pyiceberg.table.update_table_metadata", lambda metadata, *_: copies.append("copied") or metadata)
    table = worker.committers()["trades"].load()
    prepare_overwrite(table, (), live(site), {KIND: "compaction"}, commit_id=str(uuid4()))
    assert copies == []


def test_compaction_done_twice_finds_nothing_the_second_time(site: LakeSite) -> None:
    """What it made is not made again."""
    worker = filled(site, 10)
    upkeep = compaction(site, worker)
    upkeep.run(*upkeep.plan(is_whole=True))
    assert upkeep.plan(is_whole=True) == []


def test_a_window_that_lands_first_costs_another_commit_and_no_other_rewriting(site: LakeSite) -> None:
    """Each of four times another window lands before the swap: it is prepared again with the files that are there."""
    rival = filled(site, 10)
    at, steps = itertools.count(10), list[str]()

    def overtake() -> None:
        number = next(at)
        rival.commit(rival.write(window(number + 1, number * 3, number * 3 + 3)), soon())

    worker = site.worker(lambda catalog: CatalogThatLosesTheRace(catalog, other=overtake, times=4))
    upkeep = compaction(site, worker, on_step=steps.append)
    assert upkeep.run(*upkeep.plan(is_whole=True)).has_landed
    assert steps.count("compact.1.written") == 1
    assert steps.count("compact.3.before") == 5
    assert site.offsets() == list(range(14 * 3))
    assert len(live(site)) == 1 + 4


def test_a_swap_that_landed_behind_an_error_is_not_done_twice(site: LakeSite) -> None:
    """The answer lied: the look finds the commit, and the rows are there once."""
    filled(site, 9)
    worker = site.worker(lambda catalog: CatalogThatCommitsThenFails(catalog, status=500))
    upkeep = compaction(site, worker)
    assert upkeep.run(*upkeep.plan(is_whole=True)).has_landed
    assert site.snapshots("compaction") == 1
    assert site.offsets() == list(range(27))


def test_of_two_that_compact_the_same_files_one_gives_way(site: LakeSite) -> None:
    """The second finds its inputs gone from the head: its files stay orphans, no row is there twice."""
    worker = filled(site, 9)
    first, second = compaction(site, worker), compaction(site, site.worker())
    ((job,), (same,)) = first.plan(is_whole=True), second.plan(is_whole=True)
    gone = CompactsMeanwhile(first, job)
    slow = compaction(site, site.worker(), on_step=gone)
    assert not slow.run(same).has_landed
    assert site.offsets() == list(range(27))
    assert site.snapshots("compaction") == 1


class CompactsMeanwhile:
    """Somebody else's compaction of the same job, done while ours is between writing and committing."""

    def __init__(self, other: Any, job: Any) -> None:
        self._other, self._job = other, job

    def __call__(self, step: str) -> None:
        if step == "compact.2.checked":
            assert self._other.run(self._job).has_landed


def test_rows_that_are_not_the_same_are_never_swapped(site: LakeSite) -> None:
    """A file that reads otherwise than it was written stops the swap; the table stays as it is."""
    worker = filled(site, 9)
    before = site.stranger().metadata
    upkeep = compaction(site, worker, is_same=lambda *_: False)
    with pytest.raises(LakeError, match="k2 audit"):
        upkeep.run(*upkeep.plan(is_whole=True))
    assert site.stranger().metadata == before


def test_files_that_waited_too_long_are_not_committed(site: LakeSite) -> None:
    """They may have been taken for orphans."""
    worker = filled(site, 9)
    upkeep = compaction(site, worker, limits=replace(LIMITS, stale_after_us=-1))
    assert not upkeep.run(*upkeep.plan(is_whole=True)).has_landed
    assert site.snapshots("compaction") == 0


def test_more_rows_than_memory_holds_are_merged_from_runs(site: LakeSite) -> None:
    """Sorted runs on the disk give the same rows in the same order as memory does, in as many files as the target asks for."""
    worker = site.started()
    for number in range(6):
        rows = window(number + 1, number * 500, (number + 1) * 500)
        shuffled = rows.rows.set_column(
            rows.rows.schema.get_field_index("symbol"),
            rows.rows.schema.field("symbol"),
            pa.array([f"S{(o * 7919) % 97:02}" for o in rows.rows["offset"].to_pylist()]),
        )
        worker.commit(worker.write(replace(rows, rows=shuffled)), soon())
    before = sorted_rows(site)
    upkeep = compaction(site, worker, limits=replace(LIMITS, memory_bytes=100_000))
    done = upkeep.run(*upkeep.plan(is_whole=True))
    symbols = site.parquet(done.outputs[0])[1]["symbol"].to_pylist()
    assert symbols == sorted(symbols)
    assert sorted_rows(site).equals(before)


def test_a_column_that_came_later_is_null_in_files_before_it(site: LakeSite) -> None:
    """The table has grown a column since most files were written."""
    worker = filled(site, 9)
    with site.stranger().update_schema() as update:
        update.add_column("venue_note", StringType())
    upkeep = compaction(site, worker)
    assert upkeep.run(*upkeep.plan(is_whole=True)).has_landed
    rows = site.rows()
    assert rows["venue_note"].null_count == rows.num_rows == 27
    worker.commit(worker.write(window(10, 27, 30)), soon())
    assert site.offsets() == list(range(30))


def test_a_table_without_its_vector_is_left_alone(site: LakeSite) -> None:
    """An overwrite that carries no vector would pass for a first start: `k2 adopt` comes first."""
    worker = filled(site, 9)
    site.stranger().add_files([site.write("foreign.parquet", window(1, 0, 2).rows)])
    table = site.stranger()
    own = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != table.metadata.current_snapshot_id]
    table.maintenance.expire_snapshots().by_ids(own).commit()
    upkeep = compaction(site, worker)
    with pytest.raises(VectorMissing, match="k2 adopt"):
        upkeep.run(*upkeep.plan(is_whole=True))


def test_readers_and_writers_go_on_while_files_are_merged(site: LakeSite) -> None:
    """Every pinned head that a reader asks, before, during and after, holds each offset once up to its own vector."""
    worker = filled(site, 40)
    is_over, faults = threading.Event(), list[str]()

    def read() -> None:
        reader = site.worker()
        while not is_over.is_set():
            head = reader.head()
            expected = list(range(head.vector[TP].next))
            files = reader.files(head.snapshot_id or 0)
            found = sorted(o for f in files for o in site.parquet(f.path)[1]["offset"].to_pylist())
            if found != expected:
                faults.append(f"snapshot {head.snapshot_id}: {len(found)} rows, expected {len(expected)}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    writing = threading.Thread(target=lambda: [worker.commit(worker.write(window(n + 1, n * 3, n * 3 + 3)), soon()) for n in range(40, 60)])
    writing.start()
    upkeep = compaction(site, site.worker())
    while writing.is_alive() or upkeep.plan(is_whole=True):
        for job in upkeep.plan(is_whole=True):
            upkeep.run(job)
    writing.join()
    is_over.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert site.offsets() == list(range(180))
    assert worker.head().vector[TP].counts == Counts(rows=180)
    assert len(live(site)) == 1
