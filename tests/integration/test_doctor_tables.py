"""`k2 doctor` on a lake: every table in use is set against its topics, letters that wait are told, and looking makes nothing."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from k2stream.doctor import TABLES, Finding, examine
from k2stream.lake.catalog import open_catalog
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.offsets import Mark
from k2stream.lake.table import RowsLake
from k2stream.records import TopicPartition
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import Outgoing
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.instruments import INSTRUMENTS
from tables.lake.quotes import QUOTES
from tests.integration.lake_site import TP, LakeSite, soon, window

QUOTES_TOPIC = "market.equities.quotes.asx"
COMPANIES_TOPIC = "market.equities.reference_data.asx"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeSite:
    """A table of trades that continues at offset 3; no log yet."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "k2"))
    monkeypatch.setenv("K2_WEB_PORT", "0")
    site = LakeSite(tmp_path / "k2")
    worker = site.started()
    worker.commit(worker.write(window(0, 0, 3)), soon())
    return site


def log_with(site: LakeSite, topic: str, records: int, *, value: bytes = b"v") -> None:
    """A topic of one partition."""

    async def append() -> None:
        sink = EmbeddedSink(site.settings.home_path("log"))
        try:
            await sink.create_topic(topic, 1, {})
            await sink.send(topic, 0, [Outgoing(b"k", value, 1_700_000_000_000)] * records)
        finally:
            await sink.close()

    asyncio.run(append())


def table_at(site: LakeSite, next_offset: int, declaration: TableDeclaration, topic: str) -> None:
    """An empty table that begins at an offset of a topic."""
    catalog = open_catalog(site.settings)
    site.opened.append(catalog)
    RowsLake.open(site.settings, declaration, GAPS, DEAD_LETTERS, catalog=catalog).register({TopicPartition(topic, 0): next_offset}, soon())


def told() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine() if finding.what in TABLES}


def test_tables_that_are_not_in_use_have_no_line(site: LakeSite) -> None:
    """Trades are in use, and nothing is made by looking, neither a log nor a table."""
    assert told().keys() == {"trades"}
    assert told()["trades"].verdict == "ok"
    assert "market_data.trades: 3 rows, 1 partitions" in told()["trades"].says
    assert not site.settings.home_path("log").exists()


def test_every_table_in_use_says_what_is_still_to_be_read(site: LakeSite) -> None:
    """Quotes and instruments as trades, each against its own topics."""
    log_with(site, TP.topic, 3)
    log_with(site, QUOTES_TOPIC, 8)
    log_with(site, COMPANIES_TOPIC, 2)
    table_at(site, 1, QUOTES, QUOTES_TOPIC)
    table_at(site, 2, INSTRUMENTS, COMPANIES_TOPIC)
    found = told()
    assert {what: finding.verdict for what, finding in found.items()} == {"trades": "ok", "quotes": "ok", "instruments": "ok"}
    assert [finding.says.rpartition("; ")[2] for finding in found.values()] == ["nothing to be read", "7 offsets to be read", "nothing to be read"]


def test_a_topic_whose_table_is_not_there_yet_is_noted(site: LakeSite) -> None:
    """Quotes that nobody reads: a worker that leaves them out would never make the table."""
    log_with(site, QUOTES_TOPIC, 8)
    quotes = told()["quotes"]
    assert quotes.verdict == "note"
    assert "market_data.quotes: not there yet" in quotes.says
    assert QUOTES_TOPIC in quotes.says


@pytest.mark.parametrize(("topic", "table", "declaration"), [(QUOTES_TOPIC, "quotes", QUOTES), (COMPANIES_TOPIC, "instruments", INSTRUMENTS)])
def test_a_log_that_ends_before_the_table_is_wrong(site: LakeSite, topic: str, table: str, declaration: TableDeclaration) -> None:
    """It is another log, or the topic was made anew: a worker would refuse to start, and the doctor says so before."""
    log_with(site, topic, 2)
    table_at(site, 5, declaration, topic)
    finding = told()[table]
    assert finding.verdict == "wrong"
    assert f"{topic}/0: the table continues at offset 5, the log ends at 2" in finding.says
    assert told()["trades"].verdict == "ok", "what is wrong with one table is said of no other"


def test_a_topic_that_was_made_anew_is_wrong_though_it_is_as_long(site: LakeSite, tmp_path: Path) -> None:
    """Its last log batch is not the one that was committed: a worker would refuse to start, and the doctor says so before."""
    log_with(site, TP.topic, 6)

    async def last() -> Mark:
        sink = EmbeddedSink(site.settings.home_path("log"))
        try:
            found = await sink.log_batch_at(TP, 5)
        finally:
            await sink.close()
        assert found is not None
        return Mark(found.base_offset, found.crc)

    worker = site.worker()
    worker.commit(worker.write(replace(window(1, 3, 6), marks={TP: asyncio.run(last())})), soon())
    assert told()["trades"].verdict == "ok"
    site.settings.home_path("log").rename(tmp_path / "old log")
    log_with(site, TP.topic, 6, value=b"w")
    trades = told()["trades"]
    assert trades.verdict == "wrong"
    assert f"{TP.topic}/0: the log batch at offset 0 is not the one that was committed" in trades.says


def test_a_topic_that_is_gone_is_noted(site: LakeSite) -> None:
    """The table keeps its rows, and nobody adds to them."""
    log_with(site, "market.equities.trades.nyse", 1)
    trades = told()["trades"]
    assert trades.verdict == "note"
    assert trades.says.endswith(f"not in the log or not asked for by K2_TOPICS: {TP.topic}")


def test_letters_that_wait_are_noted(site: LakeSite) -> None:
    """Those that the outbox has not taken yet are counted too."""
    worker = site.worker()
    worker.commit(worker.write(window(1, 3, 6, letters=[4, 5])), soon())
    letters = told()["letters"]
    assert letters.verdict == "note"
    assert "2 records died, 2 open" in letters.says
    assert "k2 dlq list" in letters.says
