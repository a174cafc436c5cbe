"""A log that goes away while letters are written to it, again and again: the worker waits red, lives, and loses nothing."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.capture_site import ONE, TWO, WINDOW_ROWS, scene, until

OUTAGES = 4
"""More than the failures after which a worker ends."""
BAD = 3

pytestmark = pytest.mark.timeout(120)


def test_outages_of_the_log_between_two_commits_end_no_worker(tmp_path: Path) -> None:
    """Its letters found no log four times in a row: partitions are read again each time, and once it is back all rows and the letter are there."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            this.log.bad.add((ONE, BAD))
            await this.assign(ONE, TWO)
            for number in range(1, OUTAGES + 1):
                this.log.is_away = True
                await this.deliver(ONE, 0, WINDOW_ROWS)
                await until(lambda number=number: len(this.log.restarted) == number, 60)
                assert this.fatal == []
                assert "the log is away" in " ".join(this.capture.health.causes().values())
                assert await this.assign(ONE, TWO) == {ONE: 0, TWO: 0}
            this.log.is_away = False
            await this.deliver(ONE, 0, WINDOW_ROWS)
            await until(lambda: this.log.acked, 60)
            assert this.log.letters == {(ONE, BAD)}
            assert this.committed()[0] == [offset for offset in range(WINDOW_ROWS) if offset != BAD]
            assert this.capture.health.is_green()

    asyncio.run(play())
