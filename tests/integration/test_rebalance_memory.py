"""What a capture does with its memory and its open window when partitions are taken away and come back."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from k2stream.app import create_app
from k2stream.capture.capture import Capture
from k2stream.errors import LakeError
from k2stream.settings import Settings
from tests.integration.capture_site import ONE, TWO, scene, until

pytestmark = pytest.mark.timeout(60)


def test_open_window_of_partitions_that_come_back_is_committed_from_memory(tmp_path: Path) -> None:
    """No time to commit it at the revoke: it is neither read nor decoded again, and nothing of it is lost or doubled."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            this.barrier.open.set()
            assert await this.assign(ONE, TWO) == {ONE: 13, TWO: 4}
            await this.deliver(TWO, 4, 6)
            await this.revoke(ONE, TWO)
            assert this.committed() == {0: list(range(13)), 1: list(range(6))}
            assert len(this.log.decoded) == len(set(this.log.decoded)) == 19
            assert this.log.restarted == []

    asyncio.run(play())


def test_batches_of_a_partition_that_went_elsewhere_are_not_committed(tmp_path: Path) -> None:
    """Its new owner reads them too: here they are dropped, and what stayed is committed alone."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            this.barrier.open.set()
            assert await this.assign(ONE) == {ONE: 13}
            await this.revoke(ONE)
            assert this.committed() == {0: list(range(13)), 1: []}
            assert await this.assign(TWO) == {TWO: 0}

    asyncio.run(play())


def test_partition_that_another_worker_moved_is_read_from_the_vector(tmp_path: Path) -> None:
    """It came back, but somebody had it meanwhile: its batches and memory go, its neighbour's stay, and what the other wrote is known."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            this.barrier.open.set()
            await this.capture._wait_until_quiet()  # the other worker comes after the commit in flight
            this.other_commits(TWO, 0, 3)
            assert await this.assign(ONE, TWO) == {ONE: 13, TWO: 3}
            await this.deliver(TWO, 3, 6)
            await this.revoke(ONE, TWO)
            assert this.committed() == {0: list(range(13)), 1: list(range(6))}
            assert this.capture.pause.as_json()["kept"] == 1

    asyncio.run(play())


def test_commit_in_flight_that_is_fenced_takes_all_memory_with_it(tmp_path: Path) -> None:
    """Another worker was faster: tracker and filter are ahead of the table, so everything is read again from the vector, and once."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            this.other_commits(ONE, 0, 5)
            asking = asyncio.create_task(this.assign(ONE, TWO))
            await asyncio.sleep(0.1)
            this.barrier.open.set()
            assert await asking == {ONE: 5, TWO: 0}
            assert this.open_rows() == 0
            await this.deliver(ONE, 5, 13)
            await this.deliver(TWO, 0, 4)
            await this.revoke(ONE, TWO)
            assert this.committed() == {0: list(range(13)), 1: list(range(4))}
            assert this.log.restarted == [], "the assignment asks for positions anyway; one way back is enough"

    asyncio.run(play())


def test_duplicates_of_what_was_committed_before_a_rebalance_are_still_known(tmp_path: Path) -> None:
    """Memory that stays still says no to what it saw, and so does memory that was restored."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.assign(ONE, TWO)
            await this.deliver(ONE, 0, 5)
            await this.revoke(ONE, TWO)
            await this.assign(ONE)
            this.log.row = lambda tp, offset: {"trade_id": f"ASX-0-{offset % 5}", "source_sequence": offset + 1, "partition": tp.partition, "offset": offset}  # type: ignore[method-assign] # another log
            await this.deliver(ONE, 5, 8)
            await this.revoke(ONE)
            await this.assign(TWO)
            await this.revoke(TWO)
            await this.assign(ONE)
            await this.deliver(ONE, 8, 10)
            await this.revoke(ONE)
            assert this.committed()[0] == list(range(5))
            assert this.table.head().vector[ONE].counts.duplicates == 5

    asyncio.run(play())


def test_empty_partition_that_joins_leaves_the_floor_where_it_is(tmp_path: Path) -> None:
    """Nothing is known of it because there is nothing; the partitions that stayed must not ask the table about every row for it."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.assign(ONE)
            await this.deliver(ONE, 0, 5)
            await this.revoke(ONE)
            await this.assign(ONE, TWO)
            await this.deliver(ONE, 5, 9)
            await this.revoke(ONE, TWO)
            stats = this.capture.state()["filter"]
            assert isinstance(stats, dict)
            assert (stats["below_floor"], stats["rows"]) == (0, 9)
            assert this.committed()[0] == list(range(9))

    asyncio.run(play())


def test_window_is_not_closed_while_nothing_is_owned(tmp_path: Path) -> None:
    """Two rebalances in a row, the first without a position: what stays aside goes into the table only once it is owned again."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            this.barrier.open.set()
            original = this.table.head
            this.table.head = silent  # type: ignore[method-assign,assignment] # it raises, whoever asks
            with pytest.raises(LakeError):
                await this.assign(ONE, TWO)
            this.table.head = original  # type: ignore[method-assign] # put back
            await this.revoke(ONE, TWO)
            assert this.committed() == {0: list(range(10)), 1: []}
            assert await this.assign(ONE, TWO) == {ONE: 13, TWO: 4}

    asyncio.run(play())


def test_a_data_type_that_lost_all_its_partitions_keeps_no_share_of_the_budget(tmp_path: Path) -> None:
    """Its intake waits for a window that nothing will close, and what is charged for those batches would stop the other data types."""

    async def play() -> None:
        async with scene(tmp_path) as this:
            await this.leave_open_window()
            before = this.log.epochs[TWO] - 1
            full, waiting = (replace(this.log.batch(TWO, first, end), epoch=before) for first, end in ((4, 8), (8, 9)))
            this.capture._intake.put(full)
            await until(lambda: full in this.log.released)
            this.capture._intake.put(waiting)
            this.capture.let_go()
            await until(lambda: waiting in this.log.released)
            assert (this.open_rows(), "filter" in this.capture.state()) == (0, False)
            this.barrier.open.set()
            assert await this.assign(ONE, TWO) == {ONE: 10, TWO: 0}
            await this.deliver(ONE, 10, 13)
            await this.deliver(TWO, 0, 9)
            await this.revoke(ONE, TWO)
            assert this.committed() == {0: list(range(13)), 1: list(range(9))}

    asyncio.run(play())


def test_only_data_types_without_a_partition_let_go(tmp_path: Path) -> None:
    """The others go on as if nothing had been."""
    app = create_app(Settings(home=tmp_path))
    for data_type in ("quotes", "trades"):
        app.batch_topic(data_type, f"market.*.{data_type}.*").names.append(f"market.equities.{data_type}.asx")
    told = list[str]()
    for data_type in app.patterns:
        app.captures[data_type] = cast(Capture, SimpleNamespace(let_go=lambda d=data_type: told.append(d)))
    app.assigned({ONE})
    assert told == ["quotes"]
    app.assigned(set())
    assert sorted(told) == ["quotes", "quotes", "trades"]


def silent() -> None:
    raise LakeError("The catalog does not answer.")
