"""An audit beside a worker that commits: what lands while it reads is neither counted nor missed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.audit import Origin, audit_lake
from tests.integration.lake_site import TP, LakeSite, soon, window

pytestmark = pytest.mark.timeout(120)


def test_a_window_that_commits_while_the_letters_are_read_is_not_missed(tmp_path: Path) -> None:
    """Its letter came too late for this reader, and its ledger too late for this head: both are of the next audit."""
    site = LakeSite(tmp_path / "k2")
    worker = site.started()
    worker.commit(worker.write(window(0, 0, 4, letters=[1])), soon())

    def letters() -> Iterator[Origin]:
        yield (*TP, 1)
        worker.commit(worker.write(window(1, 4, 8, letters=[5])), soon())

    report = audit_lake(site.settings, letters=letters)

    assert report.problems == ()
    assert report.vector[TP].next == 4
    assert audit_lake(site.settings, letters=lambda: [(*TP, 1), (*TP, 5)]).problems == ()


def test_what_retention_takes_while_the_letters_are_read_is_asked_afterwards(tmp_path: Path) -> None:
    """A segment that goes between the two questions explains the letter that is not there."""
    site, dropped = LakeSite(tmp_path / "k2"), [0]
    worker = site.started()
    worker.commit(worker.write(window(0, 0, 4, letters=[1])), soon())

    def letters() -> Iterator[Origin]:
        dropped[0] = 1
        yield from ()

    assert audit_lake(site.settings, letters=letters, letters_dropped=lambda: dropped[0]).problems == ()
