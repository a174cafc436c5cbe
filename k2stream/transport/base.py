"""Whole batches through Faust: what both drivers share, and the Protocols by which agents take part.

Life of a batch topic's partition:
1. Faust assigns it; the handler is asked for positions (the table's vector, never the group's committed offset), they are
   sought and the epoch is raised. Faust's tables may be in recovery meanwhile: batches do not wait for them.
2. A fetch brings log batches; they are trimmed to the position, checked to be without a jump, and delivered as one
   event whose value is a `Batch`. Its bytes count against the budget until `release`.
3. `ack_batch` acks its range; the group's offset is committed up to the first batch that is not acked.
4. `restart` (fence, crash) or a revoke ends the epoch: whatever is still under way of it is dropped.
"""

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from aiokafka.errors import KafkaError
from faust.transport import base as faust_base
from faust.transport.consumer import ensure_TP, ensure_TPset
from faust.types import TP, ConsumerMessage

from k2stream.clock import Deadline
from k2stream.errors import TransportError
from k2stream.records import Batch, LogBatch, TopicPartition
from k2stream.settings import Settings, load_settings
from k2stream.transport.acks import BatchAcks
from k2stream.transport.budget import ByteBudget
from k2stream.transport.conductor import BatchConductor, ReadOffsets
from k2stream.transport.continuity import Joined, join
from k2stream.transport.events import EventConsumer
from k2stream.transport.handler import BatchConsumer, BatchHandler
from k2stream.transport.patience import BACKOFF_SECONDS
from k2stream.transport.reading import Reading
from k2stream.transport.within import within

__all__ = ["BatchConsumer", "BatchHandler", "BatchNativeConsumer", "BatchNativeTransport"]

FETCH_WAIT_SECONDS = 0.25
"""A fetch waits so long for data: what becomes fetchable meanwhile (a restart, room) must not wait for Faust's second."""
ROOM_POLL_SECONDS = 0.005


class BatchNativeTransport(faust_base.Transport):
    """What both transports change in Faust's; put it in front of a driver's Transport."""

    Conductor = BatchConductor


class BatchNativeConsumer(EventConsumer):
    """Faust consumer whose batch topics come as one event a partition and fetch; put it in front of a driver's Consumer.

    The driver's thread fetches, for batch topics, lists of `LogBatch` from the sought position on, and records for all
    others. Everything here runs on the main loop but `ack_batch` and `release`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: Settings = settings_of(self.app)
        self.budget = ByteBudget(self.settings.fetch_buffer_bytes, on_room=self._poke)
        self._read_offset = ReadOffsets(self.is_batch_topic)
        self._readings: dict[TP, Reading] = {}
        self._epochs: defaultdict[TP, int] = defaultdict(int)
        self._acks, self._acks_lock = BatchAcks(), threading.Lock()
        self._paused_batch: set[TP] = set()
        self._leaving: set[TP] = set()
        self._misread: set[TP] = set()
        self._arrived: list[tuple[TP, int, Sequence[LogBatch]]] = []
        self._begun: set[TP] = set()
        """Batch partitions of this assignment that flow, or will when their positions are known."""
        self._seek_lock = asyncio.Lock()
        self._is_poked = False

    # what drivers may override

    def is_compacted(self, topic: str) -> bool:
        """Whether the topic's cleanup.policy contains compact: its missing offsets are holes."""
        return False

    def set_floors(self, floors: Mapping[TopicPartition, int]) -> None:
        """Offsets that retention must not pass; only the embedded log can be told."""

    # what agents and handlers use

    @property
    def batch_handler(self) -> BatchHandler | None:
        handler: BatchHandler | None = getattr(self.app, "batch_handler", None)
        return handler

    def is_batch_topic(self, topic: str) -> bool:
        handler = self.batch_handler
        return handler is not None and topic in handler.batch_topics()

    def epoch(self, tp: TopicPartition) -> int:
        return self._epochs[TP(*tp)]

    def ack_batch(self, batch: Batch) -> None:
        with self._acks_lock:
            if self._epochs[TP(*batch.tp)] == batch.epoch:
                self._acks.ack(batch.tp, batch.first_offset, batch.next_offset)
        self.budget.release(batch)

    def release(self, batch: Batch) -> None:
        self.budget.release(batch)

    def pause_batch(self, tps: Iterable[TopicPartition]) -> None:
        self._paused_batch |= {TP(*tp) for tp in tps}

    def resume_batch(self, tps: Iterable[TopicPartition]) -> None:
        self._paused_batch -= {TP(*tp) for tp in tps}
        self._poke()

    async def restart(self, tps: Iterable[TopicPartition] | None = None) -> None:
        """Returns when all of `tps` that are still ours were sought; waits as long as the handler knows no position.

        Without `tps` it is what the name means to Faust: the service itself is started anew.
        """
        if tps is None:
            await super().restart()
            return
        assigned = ensure_TPset(self.assignment())
        await self._seek_batches(self._end_epoch({TP(*tp) for tp in tps} & assigned))

    def report_out_of_range(self, tp: TP, begin: int, end: int) -> None:
        """For drivers: the log holds only [begin, end), and the position of `tp` lies outside. Any thread."""
        self.loop.call_soon_threadsafe(self._on_out_of_range, TP(*tp), begin, end)

    # positions

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Batches flow at once; records of other topics once Faust has recovered its tables, which may take as long as they are large."""
        self._begun.clear()
        await super().on_partitions_assigned(assigned, generation_id)
        batch_tps = {tp for tp in ensure_TPset(assigned) if self.is_batch_topic(tp.topic)}
        if self.app.should_stop or generation_id != self.app.consumer_generation_id:
            return
        if self.batch_handler is not None:
            self.batch_handler.assigned({TopicPartition(*tp) for tp in batch_tps})
        if not batch_tps:
            return
        self._begin_batches(batch_tps)
        self.resume_partitions(batch_tps)  # Faust paused all of them; the others stay so until recovery has ended
        self.app.flow_control.resume()
        self.resume_flow()
        await cast(Any, self.app)._fetcher.maybe_start()  # noqa: SLF001 # as Faust's recovery does

    def _begin_batches(self, tps: set[TP]) -> None:
        """Seek in a task of its own: a lake that does not answer must not keep per-event topics waiting."""
        self._begun |= tps
        self.add_future(self._seek_batches(self._end_epoch(tps)))

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust's hook once its tables are there: events go to the group's offsets, batches that do not flow yet where the handler says."""
        assigned = ensure_TPset(self.assignment())
        batch_tps = {tp for tp in assigned if self.is_batch_topic(tp.topic)}
        if batch_tps - self._begun:
            self._begin_batches(batch_tps - self._begun)
        return await self.seek_due_events(assigned - batch_tps)

    def resume_flow(self) -> None:
        """Faust's hook: records of other topics may have become fetchable."""
        super().resume_flow()
        self._poke()

    def _end_epoch(self, tps: set[TP]) -> dict[TP, int]:
        """Make everything under way of `tps` stale and stop reading them; gives the epochs that begin."""
        with self._acks_lock:
            for tp in tps:
                self._epochs[tp] += 1
                self._readings.pop(tp, None)
                self._acks.forget(TopicPartition(*tp))
        self._misread -= tps
        return {tp: self._epochs[tp] for tp in tps}

    async def _seek_batches(self, epochs: Mapping[TP, int]) -> None:
        """Begin `epochs` at the handler's positions, each as soon as it is known, until all have begun, they end, or the worker stops."""
        for delay_seconds in itertools.chain(BACKOFF_SECONDS, itertools.repeat(BACKOFF_SECONDS[-1])):
            async with self._seek_lock:
                tps = self._unbegun(epochs)
                if not tps or self.should_stop or self.batch_handler is None:
                    return
                trouble: Exception | None = None
                try:
                    known = await self.batch_handler.positions({TopicPartition(*tp) for tp in tps})
                    positions = {TP(*tp): offset for tp, offset in known.items() if TP(*tp) in self._unbegun(epochs)}
                    await self.seek_wait(positions)
                    self._begin_epoch({tp: offset for tp, offset in positions.items() if self._epochs[tp] == epochs[tp]})
                except Exception as exc:  # whatever a handler raises: reading on without a position would be worse
                    trouble = exc
                if not (missing := self._unbegun(epochs)):
                    return
                self.log.warning("No position yet for %s partitions, asking again in %.1f s: %r", len(missing), delay_seconds, trouble)
            await self.sleep(delay_seconds)

    def _unbegun(self, epochs: Mapping[TP, int]) -> set[TP]:
        """Partitions whose epoch is still this one and that are not read yet."""
        return {tp for tp, epoch in epochs.items() if self._epochs[tp] == epoch and tp not in self._readings}

    def _begin_epoch(self, positions: Mapping[TP, int]) -> None:
        with self._acks_lock:
            for tp, position in positions.items():
                self._acks.begin(TopicPartition(*tp), position)
                self._readings[tp] = Reading(position)
                self._committed_offset[tp] = position or None
        self._poke()

    # fetching

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:  # noqa: ASYNC109 # Faust's signature
        """Fetch what there is room for; batches are put aside for `getmany`, records of other topics are returned."""
        self._is_poked = False
        await self._mend_positions()
        wanted = None if active_partitions is None else self._fetchable(active_partitions)
        if wanted is not None and not wanted:
            await self._wait_for_room(timeout)
            return {}
        epochs = dict(self._epochs)
        found = await super()._getmany(wanted, min(timeout, FETCH_WAIT_SECONDS))
        events: dict[TP, list[Any]] = {}
        for tp, fetched in found.items():
            if self.is_batch_topic(tp.topic):
                self._arrived.append((ensure_TP(tp), epochs.get(tp, 0), fetched))
            else:
                events[ensure_TP(tp)] = fetched
        return events

    def _fetchable(self, active: Iterable[TP]) -> set[TP]:
        has_room = self.budget.room_bytes > 0
        events = {tp for tp in active if not self.is_batch_topic(tp.topic) and self.event_flows(tp)}
        return events | {tp for tp in active if has_room and self.is_batch_topic(tp.topic) and self._is_readable(tp)}

    def _is_readable(self, tp: TP) -> bool:
        reading = self._readings.get(tp)
        return reading is not None and not reading.is_lost and tp not in self._paused_batch and tp not in self._leaving

    async def _mend_positions(self) -> None:
        """Seek back where something that was fetched was not delivered."""
        misread, self._misread = self._misread, set()
        positions = {tp: self._readings[tp].position for tp in misread if tp in self._readings}
        try:
            if positions:
                await self.seek_wait(positions)
        except (KafkaError, TransportError) as exc:
            self._misread |= misread
            self.log.warning("Could not seek back what was not delivered, trying again: %r", exc)

    def is_poked(self) -> bool:
        """For drivers: something became fetchable since the fetch began; return early with nothing."""
        return self._is_poked

    def _poke(self) -> None:
        self._is_poked = True

    async def _wait_for_room(self, seconds: float) -> None:
        deadline = Deadline.after(seconds)
        while not (self._is_poked or self.should_stop or deadline.is_over()):  # noqa: ASYNC110 # set by any thread
            await asyncio.sleep(ROOM_POLL_SECONDS)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 # Faust's signature
        """One message a batch partition, then the records of per-event topics in Faust's order."""
        events, _ = await self._wait_next_records(timeout)
        arrived, self._arrived = self._arrived, []
        if events is None or self.should_stop:
            return
        generation_id = self.app.consumer_generation_id
        for tp, epoch, log_batches in arrived:
            batch = self._admit(tp, epoch, log_batches)
            if batch is not None:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._to_batch_message(batch)
        for tp, record in self.scheduler.iterate(events):
            if not self.flow_active or generation_id != self.app.consumer_generation_id:
                break
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            yield tp, self._to_message(tp, record)
        else:
            return
        await self.rewind_events(events.keys())

    def _admit(self, tp: TP, epoch: int, log_batches: Sequence[LogBatch]) -> Batch | None:
        """A fetch as the partition's next batch, or None if it is stale, ends in a jump at once, or is old news."""
        reading = self._readings.get(tp)
        if reading is None or self._epochs[tp] != epoch or not self.flow_active or not self._is_readable(tp):
            self._misread.add(tp)
            return None
        joined = join(log_batches, reading.position, is_compacted=self.is_compacted(tp.topic))
        if joined.jump_to is not None:
            self._on_jump(tp, reading, joined)
        else:
            reading.suspect = None
        if not joined.log_batches:
            return None
        size_bytes = sum(len(b.raw) for b in joined.log_batches)
        batch = Batch(tp.topic, tp.partition, reading.position, joined.next_offset, joined.log_batches, size_bytes, epoch)
        reading.position = joined.next_offset
        return batch

    def _on_jump(self, tp: TP, reading: Reading, joined: Joined) -> None:
        """Once may be a fetch that a seek overtook: seek and read again. Twice is a loss."""
        if joined.log_batches or reading.suspect != joined.jump_to:
            reading.suspect = joined.jump_to
            self._misread.add(tp)
        else:
            self._on_lost(tp, reading.position, (joined.jump_to or 0) - 1)

    def _on_out_of_range(self, tp: TP, begin: int, end: int) -> None:
        if not self.is_batch_topic(tp.topic):
            self.forget_event_start(tp)
        elif tp in self._readings:
            position = self._readings[tp].position
            self._on_lost(tp, min(position, end), max(position, begin) - 1)

    def _on_lost(self, tp: TP, first: int, last: int) -> None:
        self._readings[tp].is_lost = True
        self.log.error("Offsets %s to %s of %s are gone and the log does not say why; the partition stands still.", first, last, tp)
        if self.batch_handler is not None:
            self.batch_handler.topic_lost(TopicPartition(*tp), first, last)

    def _to_batch_message(self, batch: Batch) -> ConsumerMessage:
        tp = TP(*batch.tp)
        timestamp_seconds = batch.log_batches[-1].base_timestamp_ms / 1000
        message = ConsumerMessage(
            batch.topic, batch.partition, batch.next_offset - 1, timestamp_seconds, 0, [], None, cast(bytes, batch), None, 0, batch.size_bytes, tp,
            generation_id=self.app.consumer_generation_id,  # without it Faust skips every event, silently
        )  # fmt: skip
        self.budget.charge(batch, carrier=batch)  # not the message: an agent that keeps the batch lets the message go
        return message

    # acks and commits

    def ack(self, message: Any) -> bool:
        """Faust's own acks; batch topics have theirs, whatever a stream that was not told `noack` does."""
        if not self.is_batch_topic(message.topic):
            return bool(super().ack(message))
        message.acked = True
        self._unacked_messages.discard(message)
        return False

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        with self._acks_lock:
            pending = [TP(*tp) for tp in self._acks.pending()]
        yield from (tp for tp in pending if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        if not self.is_batch_topic(tp.topic):
            offset: int | None = super()._new_offset(tp)
            return offset
        with self._acks_lock:
            return self._acks.committable(TopicPartition(*tp))

    def on_buffer_full(self, tp: TP) -> None:
        """Batch topics are bounded in bytes; without any active partition Faust's fetch loop sleeps a whole second."""
        if not self.is_batch_topic(tp.topic):
            super().on_buffer_full(tp)

    # partitions go

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Settle windows and commit offsets under one Deadline, then let Faust do the rest."""
        await self._settle({tp for tp in revoked if self.is_batch_topic(tp.topic)})
        await super().on_partitions_revoked(revoked)

    async def on_stop(self) -> None:
        await self._settle(set(self._readings))
        await super().on_stop()

    async def _settle(self, tps: set[TP]) -> None:
        """Nothing of `tps` is delivered from now on; what the handler cannot settle in time is left to the fence."""
        deadline = Deadline.after(self.settings.revoke_timeout_ms / 1000)
        self._leaving |= tps
        if tps and self.batch_handler is not None:
            await within(deadline, self.batch_handler.revoke({TopicPartition(*tp) for tp in tps}, deadline), log=self.log)
        await within(deadline, self.commit(), log=self.log)
        self._end_epoch(tps)
        self._leaving -= tps


def settings_of(app: Any) -> Settings:
    """The app's own settings; a plain Faust app has those of the environment."""
    settings = getattr(app, "settings", None)
    return settings if isinstance(settings, Settings) else load_settings()
