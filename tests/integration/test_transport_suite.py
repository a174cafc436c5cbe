"""What every transport promises to agents of whole batches, each promise once, on the embedded log and on Kafka."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from faust.transport.consumer import Consumer

from k2stream.records import Kind, TopicPartition
from tests.integration.transport_site import CLEANED, EmbeddedSite, KafkaSite, Site, Worker, heavy, numbered, running, values


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A log to write to, of each kind."""
    made: Site = EmbeddedSite(tmp_path) if request.param == "embedded" else KafkaSite(request.getfixturevalue("kafka"))
    yield made
    await made.close()


async def one_partition(site: Site) -> TopicPartition:
    """A new topic of one partition."""
    return TopicPartition(await site.topic(), 0)


async def test_batches_keep_the_order_of_their_partition(site: Site, tmp_path: Path) -> None:
    """Every record comes once, in the order of offsets, in batches that join without a jump."""
    topic = await site.topic(partitions=3)
    tps = [TopicPartition(topic, p) for p in range(3)]
    for tp in tps:
        await numbered(site, tp, [3, 1, 4])
    async with running(Worker(site, tmp_path, [topic])) as worker:
        for tp in tps:
            await worker.until_read(tp, 8)
        await numbered(site, tps[1], [5])
        await worker.until_read(tps[1], 13)

    for tp, count in zip(tps, (8, 13, 8), strict=True):
        assert [int(v) for v in worker.values(tp)] == list(range(count))
        spans = [(b.first_offset, b.next_offset) for b in worker.batches if b.tp == tp]
        assert [first for first, _ in spans] == [0, *(next_offset for _, next_offset in spans[:-1])]


async def test_start_inside_a_log_batch_repeats_no_row(site: Site, tmp_path: Path) -> None:
    """Logs give whole batches; rows below the vector are not delivered again."""
    tp = await one_partition(site)
    await numbered(site, tp, [10, 10])
    worker = Worker(site, tmp_path, [tp.topic])
    worker.handler.positions_of[tp] = 7
    async with running(worker):
        await worker.until_read(tp, 20)

    assert worker.batches[0].first_offset == 7
    assert [r.offset for r in worker.rows(tp)] == list(range(7, 20))


@pytest.mark.parametrize("kind", [Kind.CONTROL, Kind.ABORTED, Kind.COMPACTED])
async def test_hole_is_delivered_as_a_hole(site: Site, tmp_path: Path, kind: Kind) -> None:
    """Offsets without a record reach the ledger with their reason, and no record is made up or lost."""
    tp = TopicPartition(await site.topic(config=CLEANED if kind is Kind.COMPACTED else None), 0)
    await numbered(site, tp, [2])
    after = await site.hole(tp, 3, kind)
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until_read(tp, after + 1)

    log_batches = [b for batch in worker.batches for b in batch.log_batches]
    holes = [b for b in log_batches if b.kind is not Kind.DATA and b.last_offset < after]
    assert worker.values(tp) == [b"0", b"1", b"after"]
    assert sum(b.last_offset - b.from_offset + 1 for b in holes) == after - 2
    assert kind in {b.kind for b in holes}
    assert [b.from_offset for b in log_batches[1:]] == [b.last_offset + 1 for b in log_batches[:-1]]


@pytest.mark.parametrize("committed", [0, 9])
async def test_vector_decides_where_to_read_whatever_the_group_committed(site: Site, tmp_path: Path, committed: int) -> None:
    """The table is the truth: an offset that the group committed, before or after it, changes nothing."""
    tp = await one_partition(site)
    await numbered(site, tp, [5, 5])
    worker = Worker(site, tmp_path, [tp.topic])
    worker.handler.positions_of[tp] = 5
    await site.commit(worker.group, tp, committed)
    async with running(worker):
        await worker.until_read(tp, 10)

    assert [r.offset for r in worker.rows(tp)] == [5, 6, 7, 8, 9]


async def test_partition_without_a_position_keeps_no_other_from_being_read(site: Site, tmp_path: Path) -> None:
    """The table of one data type does not answer: the others are read, and its own partitions as soon as it does."""
    tp, away = await one_partition(site), await one_partition(site)
    for one in (tp, away):
        await numbered(site, one, [3])
    worker = Worker(site, tmp_path, [tp.topic, away.topic])
    worker.handler.unknown = {away}
    async with running(worker):
        await worker.until_read(tp, 3)
        assert not worker.rows(away)
        worker.handler.unknown = set()
        await worker.until_read(away, 3)

    assert [int(v) for v in worker.values(tp)] == [int(v) for v in worker.values(away)] == [0, 1, 2]


async def test_commit_never_passes_a_batch_that_is_not_acked(site: Site, tmp_path: Path) -> None:
    """Acks may come in any order; the group's offset moves only over what is done without a gap."""
    tp = await one_partition(site)
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        for next_offset in (2, 4, 6):
            await numbered(site, tp, [2])
            await worker.until_read(tp, next_offset)
        worker.ack(2)
        await worker.consumer.commit()
        assert not await site.committed(worker.group, tp)
        worker.ack(0)
        await worker.consumer.commit()
        assert await site.committed(worker.group, tp) == 2
        worker.ack(1)
        await worker.consumer.commit()
        assert await site.committed(worker.group, tp) == 6


async def test_handler_that_hangs_in_revoke_does_not_hang_the_worker(site: Site, tmp_path: Path) -> None:
    """The revoke has one deadline, enforced from outside; what was acked before is committed all the same."""
    tp = await one_partition(site)
    await numbered(site, tp, [4])
    worker = Worker(site, tmp_path, [tp.topic], revoke_timeout_ms=300)
    worker.handler.hangs_in_revoke = True
    async with running(worker):
        await worker.until_read(tp, 4)
        worker.ack()
        stopping = time.monotonic()
    seconds = time.monotonic() - stopping

    assert worker.handler.revoked == [{tp}]
    assert 0.2 < seconds < 5
    assert await site.committed(worker.group, tp) == 4


async def test_slow_agent_stops_the_reading_at_the_budget(site: Site, tmp_path: Path) -> None:
    """Bytes read ahead stay within the budget and one log batch, however much the log holds; nothing is lost by waiting."""
    tp = await one_partition(site)
    await heavy(site, tp, log_batches=60, records=20, value_bytes=4_000)
    worker = Worker(site, tmp_path, [tp.topic], fetch_buffer_bytes=200_000)
    worker.may_take.clear()
    async with running(worker):
        budget = worker.consumer.budget
        await worker.until(lambda: budget.room_bytes == 0, "the budget was never spent")
        await asyncio.sleep(0.5)
        held_bytes = budget.spent_bytes
        worker.may_take.set()
        await worker.until_read(tp, 1_200)
        assert budget.spent_bytes == 0

    assert held_bytes < 200_000 + 100_000
    assert [r.offset for r in worker.rows(tp)] == list(range(1_200))


async def test_batches_kept_by_their_agent_count_until_released(site: Site, tmp_path: Path) -> None:
    """An agent that takes batches at once and decodes them later must not draw the whole backlog into memory."""
    tp = await one_partition(site)
    await heavy(site, tp, log_batches=60, records=20, value_bytes=4_000)
    worker = Worker(site, tmp_path, [tp.topic], fetch_buffer_bytes=200_000)
    worker.does_release = False
    async with running(worker):
        budget = worker.consumer.budget
        await worker.until(lambda: budget.room_bytes == 0, "the budget was never spent")
        await asyncio.sleep(0.5)
        kept_bytes = sum(batch.size_bytes for batch in worker.batches)
        worker.does_release = True
        for batch in list(worker.batches):
            worker.consumer.release(batch)
        await worker.until_read(tp, 1_200)

    assert kept_bytes < 200_000 + 100_000


async def test_paused_partition_stands_still_and_its_neighbour_does_not(site: Site, tmp_path: Path) -> None:
    """Pausing holds one partition; resuming goes on where it stood."""
    topic = await site.topic(partitions=2)
    paused, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with running(Worker(site, tmp_path, [topic])) as worker:
        await numbered(site, paused, [2])
        await worker.until_read(paused, 2)
        worker.consumer.pause_batch({paused})
        await numbered(site, paused, [2])
        await numbered(site, other, [2])
        await worker.until_read(other, 2)
        await asyncio.sleep(0.3)
        assert len(worker.rows(paused)) == 2
        worker.consumer.resume_batch({paused})
        await worker.until_read(paused, 4)

    assert [int(v) for v in worker.values(paused)] == [0, 1, 2, 3]


async def test_second_worker_of_a_group_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The embedded log takes one worker a group; the other ends with one sentence that says which process holds it."""
    site = EmbeddedSite(tmp_path)
    topic = await site.topic()
    async with running(Worker(site, tmp_path, [topic], group="the-group")):
        with pytest.raises(SystemExit):
            async with running(Worker(site, tmp_path, [topic], group="the-group")):
                pass
        refusals = [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"]
        async with running(Worker(site, tmp_path, [topic], group="another-group")):
            pass
    async with running(Worker(site, tmp_path, [topic], group="the-group")):
        await site.close()

    assert len(refusals) == 1
    assert f"process {os.getpid()}" in refusals[0]


async def test_record_that_could_come_before_recovery_has_ended_is_not_lost(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust resumes partitions, seeks, and empties the queues of agents: on a slow machine there is time to fetch between the last two."""
    seek = Consumer.perform_seek

    async def slowly(self: Consumer) -> None:
        await seek(self)
        await asyncio.sleep(1)

    monkeypatch.setattr(Consumer, "perform_seek", slowly)
    tp, events = await one_partition(site), await one_partition(site)
    await site.sink.send(events.topic, 0, values("a", "b"))
    await numbered(site, tp, [3])
    worker = Worker(site, tmp_path, [tp.topic], events=events.topic)
    await site.commit(worker.group, events, 0)
    async with running(worker):
        await worker.until(lambda: len(worker.events) == 2, "the events did not come")
    assert worker.events == [(0, b"a"), (1, b"b")]


async def test_events_and_batches_of_one_worker_do_not_disturb_each_other(site: Site, tmp_path: Path) -> None:
    """A topic that was not declared as batches comes record by record, from the group's committed offset."""
    tp, events = await one_partition(site), await one_partition(site)
    await site.sink.send(events.topic, 0, values("done", "a", "b"))
    await numbered(site, tp, [3])
    worker = Worker(site, tmp_path, [tp.topic], events=events.topic)
    await site.commit(worker.group, events, 1)
    async with running(worker):
        await worker.until_read(tp, 3)
        await worker.until(lambda: len(worker.events) == 2, "the events did not come")
        await worker.consumer.commit()
        assert await site.committed(worker.group, events) == 3
        assert not await site.committed(worker.group, tp)

    assert worker.events == [(1, b"a"), (2, b"b")]


async def test_topic_that_appears_later_is_read_from_its_beginning(site: Site, tmp_path: Path) -> None:
    """A new name of a pattern is subscribed without a restart; what was read before is read again from the vector."""
    tp = await one_partition(site)
    await numbered(site, tp, [3])
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until_read(tp, 3)
        worker.handler.positions_of[tp] = 3
        new = await one_partition(site)
        await numbered(site, new, [2])
        worker.handler.topics.append(new.topic)
        await worker.until(lambda: worker.app.topics.ensure_subscribed() or worker.rows(new), "the new topic was not read")
        await numbered(site, tp, [2])
        await worker.until_read(tp, 5)

    assert [int(v) for v in worker.values(new)] == [0, 1]
    assert [int(v) for v in worker.values(tp)] == [0, 1, 2, 3, 4]
    assert worker.handler.revoked[0] == {tp}
    assert worker.handler.assigned_to_it[-1] == {tp, new}


async def test_crashed_agents_partition_is_read_again_after_restart(site: Site, tmp_path: Path) -> None:
    """What an agent crashed on was not acked; restart reads it again, and batches of the epoch before are stale."""
    tp = await one_partition(site)
    worker = Worker(site, tmp_path, [tp.topic])
    worker.crashes = 1
    async with running(worker):
        await numbered(site, tp, [2])
        await worker.until(lambda: not worker.crashes, "the agent did not crash")
        await numbered(site, tp, [3])
        await worker.until_read(tp, 5)
        stale, epoch = worker.batches[0], worker.consumer.epoch(tp)
        await worker.consumer.restart({tp})
        worker.consumer.ack_batch(stale)
        await worker.until(lambda: {r.offset for r in worker.rows(tp)} == {0, 1, 2, 3, 4}, "the crashed batch did not come again")
        await worker.until(lambda: worker.batches[-1].next_offset == 5, "not everything came again")
        await worker.consumer.commit()
        assert not await site.committed(worker.group, tp)

    assert worker.consumer.epoch(tp) > epoch
    assert [(b.epoch, b.first_offset) for b in worker.batches][:2] == [(epoch, 2), (epoch + 1, 0)]


async def test_log_that_begins_past_the_vector_is_a_loss_not_a_skip(site: Site, tmp_path: Path) -> None:
    """Retention passed the reader: the partition stands still and says which offsets are gone."""
    tp = await one_partition(site)
    await numbered(site, tp, [5, 5])
    await site.lose_below(tp, 5)
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until(lambda: worker.handler.lost, "nobody was told")
        await asyncio.sleep(0.3)

    assert worker.handler.lost == [(tp, 0, 4)]
    assert worker.batches == []


async def test_jump_in_the_log_is_a_loss_and_what_came_before_is_delivered(tmp_path: Path) -> None:
    """Missing offsets that nothing explains stop the partition; its neighbours go on; only a restart lets it read."""
    site = EmbeddedSite(tmp_path)
    topic = await site.topic(partitions=2)
    tp, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await numbered(site, tp, [5, 5, 5])
    site.lose_inside(tp, 5, 9)
    async with running(Worker(site, tmp_path, [topic])) as worker:
        await worker.until(lambda: worker.handler.lost, "nobody was told")
        await numbered(site, other, [2])
        await worker.until_read(other, 2)
        worker.handler.positions_of[tp] = 10
        await worker.consumer.restart({tp})
        await worker.until_read(tp, 15)
    await site.close()

    assert worker.handler.lost == [(tp, 5, 9)]
    assert [r.offset for r in worker.rows(tp)] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


async def test_compacted_topics_jump_is_a_hole(tmp_path: Path) -> None:
    """Where the topic's policy says compact, missing offsets are explained."""
    site = EmbeddedSite(tmp_path)
    tp = TopicPartition(await site.topic(config={"cleanup.policy": "compact"}), 0)
    await numbered(site, tp, [5, 5, 5])
    site.lose_inside(tp, 5, 9)
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until_read(tp, 15)
    await site.close()

    assert [b.kind for batch in worker.batches for b in batch.log_batches] == [Kind.DATA, Kind.COMPACTED, Kind.DATA]
    assert worker.handler.lost == []


async def test_batches_do_not_wait_for_a_table_that_is_in_recovery(site: Site, tmp_path: Path) -> None:
    """However long Faust recovers a table, batches come from the vector on, none twice; its agent's events wait for it."""
    tp, events = TopicPartition(await site.topic(), 0), await site.topic()
    recovered = asyncio.Event()
    worker = Worker(site, tmp_path, [tp.topic], events=events)
    table = worker.app.Table("slow", default=int, partitions=1)
    table.on_recover(recovered.wait)
    await numbered(site, tp, [3, 2])
    await site.sink.send(events, 0, values("an event"))
    worker.app.finalize()
    starting = asyncio.create_task(worker.app.start())  # Faust's start ends with its recovery
    try:
        await worker.until_read(tp, 5)
        await numbered(site, tp, [4])
        await worker.until_read(tp, 9)
        assert not starting.done()
        assert worker.events == []
        recovered.set()
        await starting
        await worker.until(lambda: bool(worker.events), "no event came")
        await numbered(site, tp, [1])
        await worker.until_read(tp, 10)
    finally:
        recovered.set()
        await worker.app.stop()
    assert [int(v or b"") for v in worker.values(tp)] == list(range(10))
    assert len({batch.epoch for batch in worker.batches}) == 1


async def test_table_comes_back_from_its_changelog(site: Site, tmp_path: Path) -> None:
    """Faust's tables work beside batches: the changelog is created, written in order and recovered."""
    events = await one_partition(site)
    batch_topic, group = await site.topic(), f"tables-{events.topic}"
    for run, expected in (("first", {"a": 2, "b": 1}), ("second", {"a": 3, "b": 1})):
        await site.sink.send(events.topic, 0, values("a", "a", "b") if run == "first" else values("a"))
        worker = Worker(site, tmp_path, [batch_topic], group=group)
        table = worker.app.Table("counts", default=int, partitions=1)

        async def count(stream: Any, table: Any = table) -> None:
            async for event in stream.events():
                table[event.value.decode()] += 1

        worker.app.agent(worker.app.topic(events.topic, value_type=bytes, value_serializer="raw"), name="count")(count)
        async with running(worker):
            await worker.until(lambda t=table, e=expected: dict(t) == e, f"the table of the {run} run is not {expected}")
            await worker.consumer.commit()


async def test_new_rows_wake_a_waiting_worker_at_once(site: Site, tmp_path: Path) -> None:
    """A row that another process appends reaches the agent within some hundredths of a second."""
    tp = await one_partition(site)
    waits: list[float] = []
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        for next_offset in range(1, 8):
            await numbered(site, tp, [1])
            appended = time.monotonic()
            await worker.until_read(tp, next_offset)
            waits.append(time.monotonic() - appended)
            await asyncio.sleep(0.05)

    assert sorted(waits)[len(waits) // 2] < 0.1


async def test_damaged_log_ends_the_worker_with_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rotten bytes are not delivered, not skipped and not retried for ever: the worker ends and says where they are."""
    site = EmbeddedSite(tmp_path)
    tp = TopicPartition(await site.topic(), 0)
    await numbered(site, tp, [5])
    site.rot()
    async with running(Worker(site, tmp_path, [tp.topic])) as worker:
        await worker.until(lambda: worker.app.should_stop, "the worker went on")
    await site.close()

    assert isinstance(worker.app.crash_reason, SystemExit)
    assert [f"offset 0 of {tp.topic}/0" in r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"] == [True]
    assert worker.batches == []


async def test_retention_waits_for_the_table(tmp_path: Path) -> None:
    """The worker tells the log how far its table has come; older is free to go, the rest stays whatever its age."""
    site = EmbeddedSite(tmp_path)
    tp = TopicPartition(await site.topic(), 0)
    await numbered(site, tp, [5, 5, 5])
    worker = Worker(site, tmp_path, [tp.topic])
    worker.handler.positions_of[tp] = 5
    async with running(worker):
        await worker.until_read(tp, 15)
        await worker.until(lambda: site.expire_all() and site.log.bounds(tp) == (5, 15), "the position of the table is no floor")
        worker.ack()
        await worker.consumer.commit()
        await worker.until(lambda: site.expire_all() and site.log.bounds(tp) == (15, 15), "the floor did not rise")
    await site.close()
