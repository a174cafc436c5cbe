"""Records that come twice: flagged where nobody expects them, and only counted where each trade is reported by several feeds."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from k2stream.quality.checks import Checks, Thresholds
from k2stream.records import TopicPartition
from k2stream.topics import redundant_topics
from tests.integration.capture_site import ONE, TOPIC, Scene, scene

FIVE = 5
TWIN = TopicPartition(f"{TOPIC}-b", 0)

pytestmark = pytest.mark.timeout(60)


def flagging(this: Scene) -> Scene:
    """Rows are looked at, and offset n of every partition is the trade n modulo FIVE."""
    this.capture.plan = replace(this.capture.plan, new_checks=lambda: Checks("trades", Thresholds(1e9, 1e9, 1e9, 1 << 60)))
    this.log.row = lambda tp, offset: {"topic": tp.topic, "trade_id": f"ASX-{offset % FIVE}", "source_sequence": offset + 1, "offset": offset}  # type: ignore[method-assign] # another log
    return this


def flags(this: Scene) -> dict[str, int]:
    found = this.capture.progress.flags.as_json()["flags"]
    assert isinstance(found, dict)
    return found


def test_second_reports_of_a_redundant_feed_do_not_flood_the_table_of_flags(tmp_path: Path) -> None:
    """Every trade comes twice, also in windows that hold reports of one feed alone; the ledger counts them by topic."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            flagging(this)
            await this.assign(ONE, TWIN)
            await this.deliver(ONE, 0, FIVE)
            await this.deliver(TWIN, 0, FIVE)
            await this.revoke(ONE, TWIN)
            await this.assign(ONE, TWIN)
            await this.deliver(TWIN, FIVE, 8)
            await this.revoke(ONE, TWIN)
            vector = this.table.head().vector
            assert (vector[ONE].counts.rows, vector[TWIN].counts.duplicates) == (FIVE, 8)
            assert "duplicate" not in flags(this)

    asyncio.run(play())


def test_second_reports_within_one_topic_do_not_flood_it_either(tmp_path: Path) -> None:
    """Two feeds write into the same topic, each under its name; the ledger counts what came twice."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            flagging(this)
            plain = this.log.row
            this.log.row = lambda tp, offset: {**plain(tp, offset), "vendor_data": {"feed": "ab"[offset // FIVE % 2]}}  # type: ignore[method-assign] # another log
            await this.assign(ONE)
            await this.deliver(ONE, 0, 2 * FIVE)
            await this.revoke(ONE)
            assert this.table.head().vector[ONE].counts.duplicates == FIVE
            assert "duplicate" not in flags(this)

    asyncio.run(play())


def test_a_record_that_its_own_feed_sent_twice_is_flagged(tmp_path: Path) -> None:
    """Nobody else reports its trades, so that it came twice says something of the feed."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            flagging(this)
            await this.assign(ONE)
            await this.deliver(ONE, 0, 8)
            await this.revoke(ONE)
            assert flags(this)["duplicate"] == 3

    asyncio.run(play())


def test_topics_are_redundant_with_their_own_kind_only() -> None:
    """Another venue, another data type or another asset class is no second feed."""
    alone = ["market.equities.trades.asx", "market.equities.quotes.asx", "market.crypto.trades.asx", "market.equities.trades.nyse"]
    assert redundant_topics(alone) == frozenset()
    assert redundant_topics([*alone, TWIN.topic, TWIN.topic]) == {TOPIC, TWIN.topic}
