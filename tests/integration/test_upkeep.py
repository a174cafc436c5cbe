"""Old snapshots and files go, and nothing that a head, a kept snapshot, a pin or a reader needs; days go and the ledger adds up."""

import os
import time
from pathlib import Path

import pytest
from pyiceberg.io import InputFile

from k2stream.audit import audit
from k2stream.clock import SystemClock
from k2stream.errors import LakeError, SettingsError
from k2stream.lake.file_io import DurableFileIO, local_path
from k2stream.lake.offsets import Counts
from k2stream.lake.table import RowsLake
from k2stream.query.engine import Engine
from k2stream.upkeep.tasks import Upkeep, keep_days_of, run_all
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window
from tests.integration.upkeep_site import filled, upkeep_of

DAY_US = 86_400_000_000
OLD_DAY = 1_394_400_000_000_000 // DAY_US
"""Day of the trades of lake_site.window."""


class Later(SystemClock):
    """A clock that runs so far ahead."""

    def __init__(self, ahead_us: int) -> None:
        self._ahead_us = ahead_us

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **{"snapshots_kept": 5, "unnamed_ms": 3_600_000, **place})


@pytest.fixture
def upkeep(site: LakeSite) -> Upkeep:
    return upkeep_of(site)


def later(site: LakeSite, days: float) -> Upkeep:
    """Upkeep that runs so much later."""
    return upkeep_of(site, clock=Later(int(days * DAY_US)))


def balanced(site: LakeSite, lake: RowsLake) -> bool:
    with Engine.of(site.settings) as engine:
        report = audit(lake, engine, tolerance_us=3_600_000_000)
    assert report.problems == ()
    return report.balanced


def test_orphans_go_once_they_are_old_and_nothing_else_does(site: LakeSite, upkeep: Upkeep) -> None:
    """A file of a crash waits for the safety age; live files, and what somebody else put there, stay whatever their age."""
    worker = filled(site, 6)
    crashed = worker.write(window(7, 18, 21)).files[0].file_path
    note = f"{site.stranger().location()}/data/note.txt"
    site.stranger().io.new_output(note).create().close()
    assert upkeep.orphans("trades").counts["files"] == 0
    assert later(site, 0.5).orphans("trades").counts["files"] == 0
    report = later(site, 2).orphans("trades")
    assert report.trouble is None
    assert not site.exists(crashed)
    assert site.exists(note)
    assert report.counts["unknown"] == 1
    assert site.offsets() == list(range(18))
    assert balanced(site, worker)


def test_an_orphan_that_cannot_be_deleted_is_not_called_deleted(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that refuses deletes: the file is counted as waiting, not as gone, and goes at once when it may."""
    crashed = filled(site, 2).write(window(3, 6, 9)).files[0].file_path
    later(site, 2).orphans("trades")

    def refuse(_: object, location: str) -> None:
        raise PermissionError(f"AWS Error ACCESS_DENIED during DeleteObject operation: {location}")

    with monkeypatch.context() as patch:
        patch.setattr(DurableFileIO, "delete", refuse)
        report = later(site, 2.1).orphans("trades")
    assert (report.counts["files"], report.counts["bytes"], report.trouble) == (0, 0, None)
    assert report.counts["waiting"] >= 1
    assert site.exists(crashed)
    assert later(site, 2.1).orphans("trades").counts["files"] >= 1
    assert not site.exists(crashed)


def test_a_dry_run_changes_nothing(site: LakeSite, upkeep: Upkeep) -> None:
    """It says what would be done and leaves every file and the metadata as they are."""
    worker = filled(site, 12)
    worker.write(window(13, 36, 39))
    files, metadata = site.files(), site.stranger().metadata
    much_later = later(site, 10)
    assert upkeep.compact("trades", is_whole=True, is_dry=True).counts["files_before"] == 12
    assert upkeep.expire("trades", is_dry=True).counts["snapshots"] > 0
    much_later.orphans("trades", is_dry=True)
    assert much_later.retain("trades", 9, is_dry=True).trouble is None
    assert (site.files(), site.stranger().metadata) == (files, metadata)


def test_what_compaction_replaced_stays_for_readers_and_then_goes(site: LakeSite, upkeep: Upkeep) -> None:
    """Old as the small files are, they stay while a snapshot names them, and K2_UNNAMED_MS longer."""
    worker = filled(site, 8)
    small = [f.path for f in worker.files(worker.head().snapshot_id or 0)]
    assert upkeep.compact("trades", is_whole=True).counts["files_after"] == 1
    for number in range(8, 14):
        worker.commit(worker.write(window(number + 1, number * 3, number * 3 + 3)), soon())
    later(site, 2).orphans("trades")
    assert all(site.exists(path) for path in small)  # kept snapshots name them
    later(site, 8).expire("trades")
    first = later(site, 8).orphans("trades")
    assert all(site.exists(path) for path in small)  # named by nothing since a moment ago
    assert first.counts["waiting"] >= 8
    assert later(site, 8.1).orphans("trades").counts["files"] >= 8
    assert not any(site.exists(path) for path in small)
    assert site.offsets() == list(range(42))
    assert balanced(site, worker)


def test_a_pinned_snapshot_stays_until_its_time_and_answers_as_before(site: LakeSite, upkeep: Upkeep) -> None:
    """Windows, compaction, expiry and the removal of orphans pass over it; when its time is over it goes like any other."""
    worker = filled(site, 4)
    pinned = worker.head().snapshot_id or 0
    upkeep.pin("trades", pinned, seconds=20 * 86_400)
    for number in range(4, 30):
        worker.commit(worker.write(window(number + 1, number * 3, number * 3 + 3)), soon())
        worker.take_outbox(soon())
    upkeep.compact("trades", is_whole=True)
    for days in (10.0, 10.1):
        later(site, days).expire("trades")
        later(site, days).orphans("trades")
    assert sorted(site.stranger().scan(snapshot_id=pinned).to_arrow()["offset"].to_pylist()) == list(range(12))
    report = later(site, 21).expire("trades")
    assert report.counts["pins"] == 1
    assert site.stranger().snapshot_by_id(pinned) is None
    assert site.offsets() == list(range(90))


def test_a_snapshot_that_is_gone_cannot_be_pinned(site: LakeSite, upkeep: Upkeep) -> None:
    """The sentence names the table and what to do."""
    filled(site, 1)
    with pytest.raises(LakeError, match="no longer keeps snapshot 17"):
        upkeep.pin("trades", 17, seconds=60)


def test_a_snapshot_whose_events_wait_is_kept_whatever_its_age(site: LakeSite, upkeep: Upkeep) -> None:
    """Its gap events are in no table yet."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, events=["e1"])), soon())
    for number in range(1, 10):
        worker.commit(worker.write(window(number + 1, number * 3, number * 3 + 3)), soon())
    events = [s.summary["k2.events-file"] for s in site.stranger().metadata.snapshots if "k2.events-file" in s.summary.additional_properties]
    for days in (10.0, 10.1):
        later(site, days).expire("trades")
        assert later(site, days).orphans("gaps").trouble is None
    assert len(events) == 1
    assert site.exists(events[0])
    assert worker.take_outbox(soon()) == 1
    assert site.event_ids() == ["e1"]
    assert later(site, 10.2).expire("trades").counts["snapshots"] > 0
    assert site.event_ids() == ["e1"]


def test_a_listing_that_lacks_a_live_file_deletes_nothing(site: LakeSite, upkeep: Upkeep) -> None:
    """A store that lists wrongly, or names that are spelled in two ways, must not make live files look like orphans."""
    worker = filled(site, 3)
    orphan = worker.write(window(4, 9, 12)).files[0].file_path
    site.remove(worker.files(worker.head().snapshot_id or 0)[0].path)
    report = later(site, 10).orphans("trades")
    assert "does not list" in (report.trouble or "")
    assert site.exists(orphan)


def test_days_past_their_time_go_and_the_ledger_still_adds_up(site: LakeSite, upkeep: Upkeep) -> None:
    """The rows of a day are counted as retired, per partition; later rows stay, and the audit balances."""
    worker = filled(site, 4)
    today = {"timestamp": time.time_ns() // 1000}
    worker.commit(worker.write(window(5, 12, 15, tracker=b"state", **today)), soon())
    report = upkeep.retain("trades", 9)
    assert (report.counts["days"], report.counts["rows"], report.trouble) == (1, 12, None)
    assert site.offsets() == [12, 13, 14]
    entry = worker.head().vector[TP]
    assert (entry.next, entry.counts) == (15, Counts(rows=15, retired=12))
    assert balanced(site, worker)
    assert upkeep.retain("trades", 9).counts["days"] == 0
    worker.commit(worker.write(window(6, 15, 18, **today)), soon())
    assert balanced(site, worker)


def test_a_day_that_a_restart_reads_stays(site: LakeSite, upkeep: Upkeep) -> None:
    """Rows above the newest tracker file are what the state of their partition is brought up from."""
    filled(site, 4)
    report = upkeep.retain("trades", 9)
    assert report.counts["days"] == 0
    assert "2014-03-09" in report.says[0]
    assert site.offsets() == list(range(12))


def test_retention_that_dedup_would_not_survive_is_refused(site: LakeSite, upkeep: Upkeep) -> None:
    """A trade whose row is gone would be new again inside the horizon."""
    filled(site, 1)
    with pytest.raises(SettingsError, match="expected 9 or more"):
        upkeep.retain("trades", 3)


@pytest.mark.parametrize("said", ["trades", "trades=", "=3", "trades=0", "trades=x"])
def test_retention_that_is_not_understood_is_refused(tmp_path: Path, said: str) -> None:
    """Nothing is deleted on a guess."""
    with pytest.raises(SettingsError, match="expected a table and days"):
        keep_days_of(LakeSite(tmp_path, keep_days=said).settings)


@pytest.mark.parametrize(
    ("said", "table", "trouble"),
    [
        ("trade=365,trades=3650", "K2_KEEP_DAYS", "K2_KEEP_DAYS names trade: expected names of tables, which are dead_letters, gaps, trades"),
        ("trades=3", "trades", "expected 9 or more"),
        ("gaps=365", "gaps", "is not cut by day"),
        ("trades", "K2_KEEP_DAYS", "expected a table and days"),
    ],
)
def test_retention_that_cannot_work_is_told_and_stops_nothing_else(tmp_path: Path, said: str, table: str, trouble: str) -> None:
    """A name that is mistyped is not retention that is silently none; the tables are kept healthy all the same."""
    site = LakeSite(tmp_path, keep_days=said)
    filled(site, 10)
    reports = run_all(upkeep_of(site), site.settings)
    (told,) = [report for report in reports if report.trouble]
    assert (told.task, told.table) == ("retention", table)
    assert trouble in (told.trouble or "")
    assert [r.counts["files_before"] for r in reports if (r.task, r.table) == ("compact", "trades")] == [10]
    assert {(r.task, r.table) for r in reports if r.task != "retention"} == {(t, n) for t in ("compact", "expire", "orphans") for n in upkeep_of(site).tables()}


def test_a_store_that_fails_one_read_costs_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of files cannot be read once, while retention plans: that is told, and the tables' other tasks are done."""
    site = LakeSite(tmp_path, keep_days="trades=3650")
    filled(site, 10)
    reads, failures = DurableFileIO.new_input, ["AWS Error SLOW_DOWN during GetObject operation"]

    def fail_once(io: DurableFileIO, location: str) -> InputFile:
        if location.endswith(".avro") and failures:
            raise OSError(failures.pop())
        return reads(io, location)

    monkeypatch.setattr(DurableFileIO, "new_input", fail_once)
    reports = run_all(upkeep_of(site), site.settings)
    (told,) = [report for report in reports if report.trouble]
    assert (told.task, told.table) == ("retention", "trades")
    assert "the store does not answer" in (told.trouble or "")
    assert [r.counts["files_before"] for r in reports if (r.task, r.table) == ("compact", "trades")] == [10]


def test_gap_events_are_compacted_and_taken_on(site: LakeSite, upkeep: Upkeep) -> None:
    """The gaps table carries how far it has taken its sources through a compaction of its own."""
    worker = site.started()
    for number in range(10):
        worker.commit(worker.write(window(number + 1, number, number + 1, events=[f"e{number}"])), soon())
        worker.take_outbox(soon())
    assert upkeep.compact("gaps", is_whole=True).counts["files_after"] == 1
    worker.commit(worker.write(window(11, 10, 11, events=["f"])), soon())
    assert worker.take_outbox(soon()) == 1
    assert site.event_ids() == [*(f"e{number}" for number in range(10)), "f"]


def test_an_old_file_of_a_reader_is_not_judged_by_its_age(site: LakeSite, upkeep: Upkeep) -> None:
    """The age of a file that was just replaced says nothing of who reads it: the first time it is seen unnamed does."""
    worker = filled(site, 8)
    path = local_path(worker.files(worker.head().snapshot_id or 0)[0].path)
    if path is not None:
        os.utime(path, (0, 0))
    upkeep.compact("trades", is_whole=True)
    assert upkeep.orphans("trades").counts["files"] == 0
