"""An audit beside a worker that commits: what lands while it reads is neither counted nor missed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.expressions import EqualTo

from k2stream.audit import AuditReport, Origin, audit_lake
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.lake.table import RowsLake
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES
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


def drop_letters(site: LakeSite, count: int) -> None:
    """A letter topic whose retention took so many letters."""

    async def fill() -> None:
        sink = open_sink(site.settings)
        await sink.create_topic("dlq.equities.trades", 1, {"retention.ms": "1000"})
        for n in range(count):
            await sink.send("dlq.equities.trades", 0, [Outgoing(b"%s/0/%d" % (TP.topic.encode(), n), b"{}", 1)])
        await sink.close()

    asyncio.run(fill())
    log = EmbeddedLog(site.settings.home_path("log"), now_ms=lambda: 1 << 42)
    assert log.expire(1_000) == count
    log.close()


def audited(site: LakeSite) -> AuditReport:
    return audit_lake(site.settings, letters=lambda: origins_of_letters(site.settings), letters_dropped=lambda: letters_dropped(site.settings))


def test_letters_that_retention_took_excuse_none_that_the_table_lost(tmp_path: Path) -> None:
    """The table keeps what its topic drops: a letter that neither has is a problem, however many are gone from the topic."""
    site = LakeSite(tmp_path / "k2")
    worker = site.started()
    worker.commit(worker.write(window(0, 0, 4, letters=[1, 2])), soon())
    assert worker.take_outbox(soon()) == 2
    drop_letters(site, 2)
    assert audited(site).problems == ()
    site.stranger("dead_letters").delete(EqualTo("offset", 1))
    report = audited(site)
    assert [problem.split(": ")[0] for problem in report.problems] == [f"{TP.topic}/0"]


def test_letters_from_before_there_was_a_table_may_go_with_their_topic(tmp_path: Path) -> None:
    """Nobody could keep them: so many, and no more."""
    site = LakeSite(tmp_path / "k2")
    old = RowsLake.open(site.settings, TRADES, GAPS)
    old.register({TP: 0}, soon())
    old.commit(old.write(window(0, 0, 4, letters=[1])), soon())
    drop_letters(site, 2)
    worker = site.worker()
    assert audited(site).problems == ()
    worker.commit(worker.write(window(1, 4, 8, letters=[5])), soon())
    assert worker.take_outbox(soon()) == 1
    assert audited(site).problems == ()
    site.stranger("dead_letters").delete(EqualTo("offset", 5))
    assert len(audited(site).problems) == 1
