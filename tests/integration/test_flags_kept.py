"""Files of flags outlive the snapshots that brought them: `quality` holds them, whoever lets those snapshots go."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest

from k2stream.app import create_app
from k2stream.lake.table import RowsLake
from k2stream.quality.flags import FLAGS
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.wiring import open_capture
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.quality import QUALITY
from tables.lake.trades import TRADES
from tests.integration.lake_site import TP, LakeSite, soon, window

KEPT = 5


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    return LakeSite(tmp_path, snapshots_kept=KEPT, quality=False)


def flag_of(offset: int) -> pa.Table:
    """One flagged record of TP."""
    origin = {"topic": TP.topic, "partition": TP.partition, "offset": offset}
    said = {"exchange": "ASX", "symbol": "BHP", "data_type": "trades", "flags": ["stale"], "timestamp": 0}
    return pa.Table.from_pylist([{"origin": f"{TP.topic}/{TP.partition}/{offset}", **said, **origin}], schema=FLAGS)


def flagging(site: LakeSite, numbers: range, *, is_taken: bool) -> None:
    """Windows with a flag each, by a worker that looks at rows."""
    lake = RowsLake.open(site.settings, TRADES, GAPS, DEAD_LETTERS, QUALITY)
    site.opened.append(lake.catalog)
    lake.register({TP: 0}, soon())
    for n in numbers:
        lake.commit(lake.write(replace(window(n, 3 * n, 3 * n + 3), flags=flag_of(3 * n))), soon())
        if is_taken:
            lake.take_outbox(soon())


def going_on(lake: RowsLake, numbers: range) -> None:
    """Windows without flags, until everything that may go has gone."""
    for n in numbers:
        lake.commit(lake.write(window(n, 3 * n, 3 * n + 3)), soon())
        lake.take_outbox(soon())


def flagged(site: LakeSite) -> list[int]:
    """Offsets of all flags in the table; raises if one of its files is gone."""
    return sorted(site.rows("quality")["offset"].to_pylist())


def test_a_worker_that_looks_at_no_row_still_hands_flags_on_and_deletes_none(site: LakeSite) -> None:
    """K2_QUALITY=false is said after weeks of flags: what `quality` holds stays, and what still waits for it arrives."""
    flagging(site, range(3), is_taken=True)
    flagging(site, range(3, 5), is_taken=False)
    app = create_app(site.settings)
    app.sink = EmbeddedSink(site.settings.home_path("log"))
    capture = open_capture(app, "trades", TRADES, GAPS, DEAD_LETTERS, QUALITY)
    lake = cast(RowsLake, capture.edges.table)
    site.opened.append(lake.catalog)
    going_on(lake, range(5, 16))
    assert flagged(site) == [0, 3, 6, 9, 12]
    assert len(site.stranger().metadata.snapshots) <= KEPT + 1
    assert capture.plan.new_checks() is None


def test_a_worker_without_the_table_of_flags_deletes_no_file_of_it(site: LakeSite) -> None:
    """Whose folder a file lies in decides: an outbox that this worker does not have may have been taken by one that has it."""
    flagging(site, range(3), is_taken=True)
    without = RowsLake.open(site.settings, TRADES, GAPS, DEAD_LETTERS)
    site.opened.append(without.catalog)
    going_on(without, range(3, 14))
    assert flagged(site) == [0, 3, 6]
    assert len(site.stranger().metadata.snapshots) <= KEPT + 1


def test_a_worker_without_the_table_of_flags_keeps_the_snapshots_whose_flags_wait(site: LakeSite) -> None:
    """Nobody has taken them yet: they stay reachable for a worker that does."""
    flagging(site, range(3), is_taken=False)
    without = RowsLake.open(site.settings, TRADES, GAPS, DEAD_LETTERS)
    site.opened.append(without.catalog)
    going_on(without, range(3, 14))
    flagging(site, range(14, 15), is_taken=True)
    assert flagged(site) == [0, 3, 6, 42]
