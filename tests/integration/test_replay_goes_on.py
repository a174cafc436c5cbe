"""A replay on a log that is no longer what it was: what retention took, or somebody deleted, holds up nothing else."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from k2stream.deadletter.replay import Replayed, recover, replay
from k2stream.deadletter.standing import DeadLetters
from k2stream.deadletter.trail import Act, Writer, began
from k2stream.query.letters import Selection
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from tests.integration.lake_site import TP, LakeSite, soon, window

pytestmark = pytest.mark.timeout(120)

GONE = TopicPartition("market.equities.trades.gone", 0)


async def make_topic(settings: Settings, records: int) -> None:
    """TP's topic with so many records, each in a log batch of its own."""
    sink = open_sink(settings)
    await sink.create_topic(TP.topic, 1, {"retention.ms": "1000"})
    for n in range(records):
        await sink.send(TP.topic, 0, [Outgoing(b"BHP", b"%d" % n, 1)])
    await sink.close()


class CountingLetters(DeadLetters):
    """Counts how often all letters are looked through."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.settled = 0
        self.after: dict[int, Callable[[], object]] = {}
        """What happens after which look."""

    def settle(self) -> int:
        self.settled += 1
        found = super().settle()
        self.after.pop(self.settled, lambda: None)()
        return found


async def replayed(letters: DeadLetters, selection: Selection, wait_seconds: float = 0) -> Replayed:
    sink = open_sink(letters.settings)
    try:
        return await replay(letters, sink, selection, rate=None, wait_seconds=wait_seconds)
    finally:
        await sink.close()


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    """One letter at offset 1 of TP, one of a topic that does not exist."""
    site = LakeSite(tmp_path / "k2")
    site.worker().register({TP: 0, GONE: 0}, soon())
    worker = site.worker()
    worker.commit(worker.write(window(0, 0, 2, letters=[1])), soon())
    worker.commit(worker.write(window(1, 0, 1, letters=[0], tp=GONE)), soon())
    return site


def test_a_replay_that_was_cut_off_is_over_once_retention_took_its_records(site: LakeSite) -> None:
    """What it published cannot be found any more: it ends, and every later replay goes on."""
    asyncio.run(make_topic(site.settings, 4))
    log = EmbeddedLog(site.settings.home_path("log"), now_ms=lambda: 1 << 42)
    log.set_floor("k2", TP, 3)
    assert log.expire(1_000)
    assert log.bounds(TP)[0] > 1
    log.close()
    with DeadLetters(site.settings) as letters:
        letters.write([began(Writer("cut off", "somebody"), 1, selection="everything", ends={TP: 1, GONE: 0})])
        assert recover(letters, Writer("next", "somebody")) == 0
        assert [row["replay_id"] for row in letters.trail().to_pylist() if row["act"] == Act.ENDED] == ["cut off"]
        assert recover(letters, Writer("third", "somebody")) == 0


def test_a_letter_whose_topic_was_deleted_keeps_no_other_back(site: LakeSite) -> None:
    """It stays open and is counted; the letters of topics that are there go out."""
    asyncio.run(make_topic(site.settings, 2))
    with DeadLetters(site.settings) as letters:
        done = asyncio.run(replayed(letters, Selection()))
        assert (done.published, done.homeless) == (1, 1)
        again = asyncio.run(replayed(letters, Selection()))
        assert (again.published, again.homeless) == (0, 1)


def test_who_waits_for_outcomes_looks_again_only_after_a_commit(site: LakeSite) -> None:
    """All letters are looked through when it begins and when it waits, then once for each new head."""
    asyncio.run(make_topic(site.settings, 2))
    with CountingLetters(site.settings) as letters:
        done = asyncio.run(replayed(letters, Selection(topic=TP.topic), wait_seconds=3))
        assert (done.waiting, letters.settled) == (1, 2)


def test_an_outcome_that_is_committed_while_somebody_waits_is_told(site: LakeSite) -> None:
    """The window lands right after a look that did not find it."""
    asyncio.run(make_topic(site.settings, 2))
    worker = site.worker()
    with CountingLetters(site.settings) as letters:
        letters.after[2] = lambda: worker.commit(worker.write(window(2, 2, 3)), soon())
        done = asyncio.run(replayed(letters, Selection(topic=TP.topic), wait_seconds=60))
        assert (done.outcomes, done.waiting, letters.settled) == ({"row": 1}, 0, 3)
