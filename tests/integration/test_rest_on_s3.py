"""A REST catalog and files on S3, as most users will have them: the whole protocol at once."""

from contextlib import closing
from pathlib import Path

import pytest

from k2stream.errors import Fenced
from k2stream.lake.offsets import Counts
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.fingerprint import table_fingerprint
from k2stream.rows import TRADES
from k2stream.testing import CatalogThatCommitsThenFails
from tests.integration.conftest import place_on
from tests.integration.lake_site import TP, LakeSite, soon, window

pytestmark = [pytest.mark.rest, pytest.mark.s3]

KEPT = 5
"""Snapshots: few, so that some expire."""


def test_windows_land_once_are_handed_on_and_read_back(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Rows, gap events, tracker files, a reply that is lost, a zombie, expiry, DuckDB's look: nothing is missing, nothing twice."""
    site = LakeSite(tmp_path, **place_on(request, ("rest", "s3")), snapshots_kept=KEPT)
    zombie = site.started()
    stale = zombie.write(window(1, 0, 9))
    worker = site.worker(lambda catalog: CatalogThatCommitsThenFails(catalog, status=500))
    for number in range(1, 9):
        first = (number - 1) * 3
        head = worker.commit(worker.write(window(number, first, first + 3, events=[f"e{number}"], tracker=b"state")), soon(60))
        worker.take_outbox(soon(60))
    assert head.vector[TP].next == 24
    assert head.vector[TP].counts == Counts(rows=24)
    with pytest.raises(Fenced):
        zombie.commit(stale, soon(60))
    assert site.offsets() == list(range(24))
    assert site.event_ids() == sorted(f"e{number}" for number in range(1, 9))
    assert len(site.stranger().metadata.snapshots) <= KEPT + 1
    assert worker.tracker_blob(head.vector[TP].tracker_file or "", TP) == (24, b"state")
    with closing(TableReader.open_reader(site.settings, "trades")) as reader, Engine.of(site.settings) as engine:
        seen = reader.head()
        assert seen.snapshot_id is not None
        assert table_fingerprint(engine, reader.files(seen.snapshot_id), TRADES.names).rows == 24
