"""Flags of many days in one window: cut by day when their table takes them, each once, whoever dies meanwhile; and days past their time go."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.lake.catalog import open_table
from k2stream.lake.listing import plain
from k2stream.lake.orphans import named_by
from k2stream.lake.table import RowsLake
from k2stream.testing import CatalogThatLosesTheRace
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.quality import QUALITY
from tables.lake.trades import TRADES
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window
from tests.integration.test_flags_kept import flag_of
from tests.integration.test_upkeep import DAY_US, OLD_DAY, later
from tests.integration.upkeep_site import upkeep_of

TAKES = """
from k2stream.clock import Deadline
from k2stream.crash import on_step_of
from k2stream.lake.table import RowsLake
from k2stream.settings import load_settings
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.quality import QUALITY
from tables.lake.trades import TRADES

settings = load_settings()
lake = RowsLake.open(settings, TRADES, GAPS, DEAD_LETTERS, QUALITY, on_step=on_step_of(settings.crash_at))
lake.take_outbox(Deadline.after(60))
"""
Days = dict[int, list[int]]


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **{"snapshots_kept": 5, **place})


def flags(offsets: Sequence[int], days: Sequence[int]) -> pa.Table:
    """A flag for each of these offsets, in turn of these days."""
    rows = pa.concat_tables([flag_of(offset) for offset in offsets])
    times = [OLD_DAY * DAY_US + days[number % len(days)] * DAY_US + offset for number, offset in enumerate(offsets)]
    at = rows.schema.get_field_index("timestamp")
    return rows.set_column(at, rows.schema.field(at), pa.array(times, rows.schema.field(at).type))


def flagging(site: LakeSite, worker: RowsLake, number: int, days: Sequence[int]) -> None:
    """A window of six records, all of them flagged."""
    first = 6 * number
    worker.commit(worker.write(replace(window(number, first, first + 6), flags=flags(range(first, first + 6), days))), soon())


def worker_of(site: LakeSite) -> RowsLake:
    lake = RowsLake.open(site.settings, TRADES, GAPS, DEAD_LETTERS, QUALITY)
    site.opened.append(lake.catalog)
    lake.register({TP: 0}, soon())
    return lake


def by_day(site: LakeSite) -> Days:
    """Offsets in the files of each day of the table; a flag that is there twice shows twice."""
    found: Days = {}
    for task in site.stranger("quality").scan().plan_files():
        rows = site.parquet(task.file.file_path)[1]
        for offset, time in zip(rows["offset"].to_pylist(), rows["timestamp"].cast(pa.int64()).to_pylist(), strict=True):
            assert time // DAY_US == task.file.partition[0]
            found.setdefault(time // DAY_US - OLD_DAY, []).append(offset)
    return {day: sorted(offsets) for day, offsets in sorted(found.items())}


def test_flags_of_one_day_are_taken_as_they_lie_and_of_several_cut_by_day(site: LakeSite) -> None:
    """A window around midnight makes a file of each day; any other costs no copy."""
    worker = worker_of(site)
    flagging(site, worker, 0, [0])
    flagging(site, worker, 1, [0, 1, 400])
    assert worker.take_outbox(soon()) == 12
    assert by_day(site) == {0: [0, 1, 2, 3, 4, 5, 6, 9], 1: [7, 10], 400: [8, 11]}
    live = [task.file.file_path for task in site.stranger("quality").scan().plan_files()]
    staged = {s.summary["k2.flags-file"] for s in site.stranger().metadata.snapshots if "k2.flags-file" in s.summary.additional_properties}
    assert len(staged & set(live)) == 1
    assert len(live) == 4


def test_two_takers_append_the_days_of_a_window_once(site: LakeSite) -> None:
    """All its days are one snapshot: the slower of two finds them there, whole."""
    worker = worker_of(site)
    flagging(site, worker, 0, [0, 1])
    slow = RowsLake.open(
        site.settings, TRADES, GAPS, DEAD_LETTERS, QUALITY, catalog=CatalogThatLosesTheRace(worker.catalog, other=lambda: worker_of(site).take_outbox(soon()))
    )
    assert slow.take_outbox(soon()) == 0
    assert worker.take_outbox(soon()) == 0
    assert by_day(site) == {0: [0, 2, 4], 1: [1, 3, 5]}


def test_a_taking_that_loses_a_race_does_not_copy_again(site: LakeSite) -> None:
    """A merge was faster: the days of a window are written once, however often their snapshot is tried."""
    worker = worker_of(site)
    flagging(site, worker, 0, [0, 1])
    flagging(site, worker, 1, [0, 1])
    worker.take_outbox(soon())
    flagging(site, worker, 2, [0, 1, 2])
    merged: list[object] = []

    def merge() -> None:
        merged.append(upkeep_of(site).compact("quality", is_whole=True).trouble)

    slow = RowsLake.open(site.settings, TRADES, GAPS, DEAD_LETTERS, QUALITY, catalog=CatalogThatLosesTheRace(worker.catalog, other=merge))
    assert slow.take_outbox(soon()) == 6
    assert merged == [None]
    assert by_day(site) == {0: [0, 2, 4, 6, 8, 10, 12, 15], 1: [1, 3, 5, 7, 9, 11, 13, 16], 2: [14, 17]}
    written = [path for path in site.files("quality") if path.suffix == ".parquet" and min(site.parquet(site.location(path))[1]["offset"].to_pylist()) >= 12]
    assert len(written) == 1 + 3  # what the window wrote, and its days


def test_a_rollback_doubles_no_flag_of_any_day(site: LakeSite) -> None:
    """The same records are read again and flagged again: what the table holds is left out, day by day."""
    worker = worker_of(site)
    kept = worker.commit(worker.write(window(0, 0, 6)), soon())
    flagging(site, worker, 1, [0, 1])
    worker.take_outbox(soon())
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    worker = worker_of(site)
    worker.commit(worker.write(replace(window(2, 6, 14), flags=flags(range(6, 14), [0, 1]))), soon())
    assert worker.take_outbox(soon()) == 2
    assert by_day(site) == {0: [6, 8, 10, 12], 1: [7, 9, 11, 13]}


def killed_at(step: str, site: LakeSite) -> None:
    """A worker that takes what is owed dies there, by a real SIGKILL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    environment |= {"K2_HOME": str(site.settings.home), "K2_FSYNC": "false", "K2_CRASH_AT": step}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", TAKES], env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_taking_that_is_killed_leaves_all_days_of_a_window_or_none(tmp_path: Path) -> None:
    """Copies that a dead worker wrote are nobody's, and go; the next one takes each flag once."""
    site = LakeSite(tmp_path, snapshots_kept=5)
    worker = worker_of(site)
    flagging(site, worker, 0, [0, 1, 2])
    for step in ("5.head", "5.before"):
        killed_at(step, site)
        assert by_day(site) == {}
    killed_at("5.after", site)
    taken = {0: [0, 3], 1: [1, 4], 2: [2, 5]}
    assert by_day(site) == taken
    assert worker_of(site).take_outbox(soon()) == 0
    flagging(site, worker, 1, [2])
    assert worker_of(site).take_outbox(soon()) == 6
    assert by_day(site) == {**taken, 2: [2, 5, *range(6, 12)]}
    for number in range(2, 12):
        worker.commit(worker.write(window(number, 6 * number, 6 * number + 6)), soon())
        worker.take_outbox(soon())
    for days in (10.0, 10.1):
        upkeep = later(site, days)
        assert [upkeep.expire(name).trouble or upkeep.orphans(name).trouble for name in ("trades", "quality")] == [None, None]
    named = {plain(name) for name in named_by(site.stranger("quality"))}
    assert {str(path) for path in site.files("quality") if path.parent.name != "upkeep"} == named
    assert by_day(site) == {**taken, 2: [2, 5, *range(6, 12)]}


def test_days_of_flags_past_their_time_go_and_none_comes_back(site: LakeSite) -> None:
    """Retention and merging of days keep how far the table has taken its source."""
    worker = worker_of(site)
    today = later(site, 0)._clock.now_us() // DAY_US - OLD_DAY
    for number in range(3):
        flagging(site, worker, number, [0, today])
        worker.take_outbox(soon())
    upkeep = upkeep_of(site)
    assert upkeep.compact("quality", is_whole=True).counts["files_after"] == 2
    report = upkeep.retain("quality", 2)
    assert (report.trouble, report.counts["days"], report.counts["rows"]) == (None, 1, 9)
    assert worker_of(site).take_outbox(soon()) == 0
    assert by_day(site) == {today: [offset for offset in range(18) if offset % 2]}
    flagging(site, worker, 3, [today])
    assert worker.take_outbox(soon()) == 6


def test_a_table_of_flags_from_before_days_goes_on_uncut(site: LakeSite) -> None:
    """It is written to and merged as it is, and retention says why it cannot cut it."""
    open_table(upkeep_of(site).catalog, site.settings, replace(QUALITY, day_of=None))
    worker = worker_of(site)
    for number in range(2):
        flagging(site, worker, number, [0, 1])
        assert worker.take_outbox(soon()) == 6
    upkeep = upkeep_of(site)
    assert upkeep.compact("quality", is_whole=True).counts["files_after"] == 1
    assert sorted(site.rows("quality")["offset"].to_pylist()) == list(range(12))
    assert "before flags were cut by day" in (upkeep.retain("quality", 30).trouble or "")
    assert upkeep.keep("quality").says == ["kept for ever: it was made before flags were cut by day"]
