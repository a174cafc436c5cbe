"""A worker that others outrace for the whole time of a commit: it is not broken, and what it read is committed once."""

import asyncio
import itertools
from pathlib import Path

import pytest

from k2stream.records import TopicPartition
from k2stream.testing import CatalogThatLosesTheRace
from tests.integration.capture_site import ONE, TOPIC, TWO, WINDOW_ROWS, scene, until
from tests.integration.lake_site import LakeSite, soon, window

RIVALS = TopicPartition(TOPIC, 2)
ROUNDS = 4
"""More than the failures after which a worker ends."""

pytestmark = pytest.mark.timeout(120)


def test_a_worker_outraced_again_and_again_is_not_charged_and_loses_nothing(tmp_path: Path) -> None:
    """Each time its partitions are read again from the vector; it never ends, and once there is room its rows are there, each once."""
    rival, taken = LakeSite(tmp_path).worker(), itertools.count()
    rival.register({RIVALS: 0}, soon())
    faults: list[CatalogThatLosesTheRace] = []

    def overtake() -> None:
        at = next(taken)
        rival.commit(rival.write(window(at + 1, at, at + 1, tp=RIVALS)), soon())

    def always(catalog: object) -> CatalogThatLosesTheRace:
        faults.append(CatalogThatLosesTheRace(catalog, other=overtake, times=0))  # type: ignore[arg-type] # the site's catalog
        return faults[0]

    async def play() -> None:
        async with scene(tmp_path, fault=always, commit_seconds=0.5) as this:
            await this.assign(ONE, TWO)
            for number in range(1, ROUNDS + 1):
                faults[0].left = 1_000_000
                await this.deliver(ONE, 0, WINDOW_ROWS)
                await until(lambda number=number: len(this.log.restarted) == number, 60)
                faults[0].left = 0
                assert this.log.restarted[-1] == {ONE, TWO}
                assert this.fatal == []
                assert this.capture.health.is_green()
                assert await this.assign(ONE, TWO) == {ONE: 0, TWO: 0}
            await this.deliver(ONE, 0, WINDOW_ROWS)
            await until(lambda: this.log.acked, 60)
            await this.revoke(ONE, TWO)
            assert this.site.offsets().count(0) == 2  # ours, and the rival's
            rows = this.site.rows().select(["partition", "offset"]).to_pylist()
            assert sorted(row["offset"] for row in rows if row["partition"] == ONE.partition) == list(range(WINDOW_ROWS))
            assert sorted(row["offset"] for row in rows if row["partition"] == RIVALS.partition) == list(range(next(taken)))

    asyncio.run(play())
