"""The life of one data type in one worker: assignment, loops, restart, revoke.

Who does what:
    event loop    take() queues batches; _judge() and _sink() drive the two threads; nothing here computes
    decode thread decode, validate, filter; marks committed keys and restores them, so the filter has one user
    sink thread   settle, write, commit, outbox, state; so the tracker has one user, but for a restore, when it stands idle

`_era` is the one guard against stale work: a restart raises it, and whatever comes back from a thread with an older era is
dropped. There is one way back from every trouble: restart, which forgets all memory and reads again from the table's vector.

A rebalance takes all partitions away and gives most of them back. `_owns` is set while they are ours; between revoke() and
the next positions() no window is closed, memory and open window stay aside. Then windows in flight have ended, one way or the
other, and assignment.py says which partitions go on as if nothing had been; of all others memory and batches are dropped.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import structlog

from k2stream.capture import closing as sink
from k2stream.capture.assignment import remember, retained, stand_of
from k2stream.capture.edges import Edges, Head
from k2stream.capture.intake import Intake
from k2stream.capture.pause import Pause
from k2stream.capture.plan import Plan
from k2stream.capture.progress import Progress
from k2stream.capture.restore import Memory
from k2stream.capture.stages import Stages
from k2stream.capture.start import head_with
from k2stream.clock import Clock, Deadline
from k2stream.dedup.seen import RecentWindows
from k2stream.errors import Fenced, K2Error, Outraced, RegistryUnavailable, TransportError
from k2stream.health import Health
from k2stream.pipeline import Settled
from k2stream.records import Batch, TopicPartition
from k2stream.verdict import Judged
from k2stream.window import OpenWindow

log = structlog.get_logger(__name__)
T = TypeVar("T")

TICK_SECONDS, QUIET_SECONDS = 0.05, 0.01
POSITION_CHECK_SECONDS, LOG_ENDS_SECONDS, LOG_AWAY_SECONDS = 10.0, 0.5, 1.0
STRIKES = 3
"""Failures in a row without a commit between them before a partition, or the worker, stops."""


class Capture:
    """One data type, all partitions of this worker; the BatchHandler of its topics."""

    def __init__(self, plan: Plan, edges: Edges, *, clock: Clock, health: Health, on_fatal: Callable[[str], None]) -> None:
        self.plan, self.edges, self.clock, self.health = plan, edges, clock, health
        self.progress, self.stages, self.pause = Progress(plan.data_type), Stages(), Pause(plan.data_type)
        self._on_fatal = on_fatal
        self._intake = Intake(plan.data_type, edges, judge=plan.judge, limits=plan.limits, clock=clock, stages=self.stages)
        self._sink_thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{plan.data_type}")
        self._era = 0
        self._closed: asyncio.Queue[OpenWindow] = asyncio.Queue(maxsize=1)
        self._sink_is_free, self._owns = asyncio.Event(), asyncio.Event()
        self._sink_is_free.set()
        self._window = OpenWindow(1)
        self._closing: sink.Closing | None = None
        self._position: dict[TopicPartition, int] = {}
        self._since: dict[TopicPartition, int] = {}
        """Oldest epoch of each partition whose batches count."""
        self._committed: dict[TopicPartition, int] = {}
        """Where memory stands; where each window starts."""
        self._paused: set[TopicPartition] = set()
        """Stand still until the worker is started again."""
        self._strikes: dict[TopicPartition | None, int] = {}
        self._outstanding: list[OpenWindow] = []
        """Closed, not yet settled."""
        self._close_lock, self._restart_lock = asyncio.Lock(), asyncio.Lock()
        self._in_sink = 0

    # --- what the transport calls -------------------------------------------------------------------

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to read each partition from: behind the batches that it still has, else at the table's `next`."""
        self._owns.clear()
        era, epochs = self._era, self._epochs_of(tps)
        try:
            await self._wait_until_quiet()
            bounds = await self.edges.consumer().bounds(tps)
            deadline = Deadline.after(self.plan.commit_timeout_seconds, self.clock)
            head = await head_with(self.edges, tps, bounds, start=self.plan.start, deadline=deadline, run=self._in_sink_thread)
            known = None if self._closing is None else self._closing.memory
            kept = set() if known is None else retained(stand_of(known, self._committed), head, tps)
            memory = await self._intake.run(lambda: remember(self.edges, known, head, tps, kept, self.plan.new_tracker(), self.plan.new_filter))
        except K2Error as exc:
            self.health.red("capture", str(exc))
            if not exc.is_retriable:
                self._on_fatal(str(exc))
            raise
        except Exception as exc:
            self.health.red("capture", f"no position could be read: {exc!r}")  # the transport asks again, and for ever
            raise
        self.health.green("capture")
        if era != self._era:
            return await self.positions(tps)
        self._own(memory, tps, kept, epochs)
        self.progress.assigned(head.vector, tps, {tp: end for tp, (_, end) in bounds.items()})
        return dict(self._position)

    def _epochs_of(self, tps: set[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.edges.consumer().epoch(tp) for tp in tps}

    async def _wait_until_quiet(self) -> None:
        """Windows in flight end as the table says: then memory stands at `_committed`, or was forgotten."""
        era = self._era
        while era == self._era and (self._in_sink or self._outstanding):  # noqa: ASYNC110 # two conditions, changed in threads
            await asyncio.sleep(QUIET_SECONDS)

    def _own(self, memory: Memory, tps: set[TopicPartition], kept: set[TopicPartition], epochs: Mapping[TopicPartition, int]) -> None:
        """Go on with these partitions, unless they were taken away meanwhile: then positions are asked for once more."""
        self._closing = sink.Closing(memory, RecentWindows(), self.plan.new_checks()) if self._closing is None else self._closing.of(memory, kept)
        self._committed = {tp: memory.head.vector[tp].next for tp in tps}
        self._position = {tp: self._position[tp] if tp in kept else self._committed[tp] for tp in tps}
        self._since = {tp: self._since[tp] if tp in kept else epochs[tp] for tp in tps}
        self._intake.sift(self._counts)
        self._window = self._window.of(kept)
        self.pause.assigned(self.clock.monotonic(), kept=len(kept), restored=len(tps - kept))
        log.info("capture.assigned", partitions=len(tps), kept=len(kept), window_rows=self._window.rows)
        if epochs == self._epochs_of(tps):
            self._owns.set()

    def _counts(self, batch: Batch) -> bool:
        """Whether a batch belongs to what is owned now."""
        return batch.tp in self._since and batch.epoch >= self._since[batch.tp]

    async def revoke(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Close the open window and commit what the deadline allows; the rest stays aside. A commit under way is left to the fence."""
        self.pause.begin(self.clock.monotonic())
        if not self._owns.is_set():
            return
        try:
            async with asyncio.timeout(deadline.remaining_seconds()):
                await self._close_window()
                await self._wait_until_quiet()
        except TimeoutError:
            log.warning("capture.revoked_late", partitions=len(tps), then="the fence decides what landed; the rest is read again")
        finally:
            self._owns.clear()
            self.progress.revoked()

    def let_go(self) -> None:
        """A rebalance left nothing here: memory, window and batches, which count against the budget of all, go. A commit under way is left to the fence."""
        if self._committed:
            log.info("capture.let_go", partitions=len(self._committed))
            self._committed = {}
            self._forget()

    def topic_lost(self, tp: TopicPartition, first: int, last: int) -> None:
        """Offsets that nobody can explain: the partition stops, red; nothing of it is skipped in silence."""
        self._stop(TopicPartition(*tp))
        self.health.red(
            f"lost {tp.topic}/{tp.partition}",
            f"{tp.topic}/{tp.partition}: offsets {first} to {last} are gone from the log before they were committed. "
            "The partition is stopped; restore the log, or accept the loss with `k2 adopt --lost`.",
        )

    async def take(self, batch: Batch) -> None:
        """One batch from the agent's stream; returns at once, the transport's byte budget is the back-pressure."""
        tp = batch.tp
        if batch.epoch != self.edges.consumer().epoch(tp) or tp not in self._position:
            return self.edges.consumer().release(batch)
        if batch.first_offset != self._position[tp]:
            self.edges.consumer().release(batch)
            await self.restart(f"{tp.topic}/{tp.partition}: expected offset {self._position[tp]}, found {batch.first_offset}")
            return
        self._position[tp] = batch.next_offset
        self.pause.batch(self.clock.monotonic())
        self.progress.fetched(batch.size_bytes)
        self._intake.put(batch)

    # --- the loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All loops until cancelled."""
        await asyncio.gather(self._judge(), self._sink(), self._tick(), self._watch_positions(), self._watch_log_ends())

    async def _judge(self) -> None:
        while True:
            batches = await self._intake.gather()
            era = self._era
            judged = await self._judged(batches, era)
            for batch in batches:
                self.edges.consumer().release(batch)
            if era != self._era or judged is None:
                continue
            for batch, j in zip(batches, judged, strict=True):
                if self._counts(batch):
                    self._window.add(j, batch.receipt(), now=self.clock.monotonic())
            if self._window.is_full(self.plan.window):
                await self._close_window()

    async def _judged(self, batches: list[Batch], era: int) -> list[Judged] | None:
        """Judged batches; None if the work became stale or a partition was restarted for it."""
        waits = 0.1
        while era == self._era and (closing := self._closing) is not None:
            try:
                judged = await self._intake.judge(batches, closing.memory.seen)
            except RegistryUnavailable as exc:
                self.health.red("registry", str(exc))
                await asyncio.sleep(waits)
                waits = min(waits * 2, 10.0)
            except Exception as exc:  # whatever a decoder can raise: the partition pays, the others go on
                if era == self._era:
                    await self._strike(await self._intake.culprit(batches, closing.memory.seen), exc)
                return None
            else:
                self.health.green("registry")
                return judged
        return None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            is_due = self._window.is_due(self.plan.window, now=self.clock.monotonic())
            if is_due and self._owns.is_set() and not self._close_lock.locked():
                await self._close_window()

    async def _close_window(self) -> None:
        """Hand the open window to the sink; waits while the one before is there, so that two windows at most are in memory.

        While it waits for its age the window still takes rows; once it is full the intake waits, which is the back-pressure.
        """
        async with self._close_lock:
            await self._owns.wait()
            await self._sink_is_free.wait()
            if not self._window.judged:
                return
            self._sink_is_free.clear()
            window, self._window = self._window, OpenWindow(self._window.number + 1, era=self._era)
            self._outstanding.append(window)
            await self._closed.put(window)

    async def _sink(self) -> None:
        while True:
            window = await self._closed.get()
            if window.era == self._era:
                self._outstanding.remove(window)
                await self._sink_one(window)
            del window  # its rows go before the next one comes
            self._sink_is_free.set()

    async def _sink_one(self, window: OpenWindow) -> None:
        era, self._in_sink = self._era, 1
        try:
            await self._settle_and_commit(window, era)
        except Exception as exc:  # whatever the lake, the look-up or the letters can raise: read again, three times
            if era != self._era:  # forgotten meanwhile, so what became of it no longer matters
                log.info("window.dropped", window=window.number, cause=str(exc))
            elif isinstance(exc, Fenced):
                self.progress.fenced()
                await self.restart(str(exc))
            elif isinstance(exc, Outraced):  # the table goes on, so it is no failure, however often it happens
                await self.restart(str(exc))
            elif isinstance(exc, TransportError) and exc.is_retriable:  # letters found no log: however often it goes away, that ends no worker
                self.health.red("capture", f"sink: {exc}")
                await asyncio.sleep(LOG_AWAY_SECONDS)
                await self.restart(str(exc), era=era)
            else:
                await self._strike(None, exc)
        finally:
            if era == self._era:
                self._in_sink = 0

    async def _settle_and_commit(self, window: OpenWindow, era: int) -> None:
        closing = self._closing
        if closing is None:
            return
        closing.recent.drop_through(self._oldest_marked(window))
        settled, staged = await self._in_sink_thread(lambda: self.plan.settle_and_write(self.edges, closing, window, self.stages))
        if settled.rejects and era == self._era:
            await self.edges.letters(settled.rejects)
        if era != self._era:
            return
        deadline = Deadline.after(self.plan.commit_timeout_seconds, self.clock)
        with self.progress.commit_timed():
            head = await self._in_sink_thread(lambda: sink.commit(self.edges, closing, settled, staged, deadline, self.stages))
        if era != self._era:
            return
        self._done(window, closing, settled, head)

    def _oldest_marked(self, window: OpenWindow) -> int:
        """Windows up to this one are in the filter of every batch that is not settled yet, so memory may let them go."""
        windows = [window, self._window, *self._outstanding]
        return min([self._intake.marked_through, self._intake.judging_since, *(j.marked_through for w in windows for j in w.judged)])

    def _done(self, window: OpenWindow, closing: sink.Closing, settled: Settled, head: Head) -> None:
        """Step 7: acks follow the table, they never lead it."""
        self._committed.update({tp: span[1] for tp, span in settled.spans.items()})
        self._intake.mark(closing.memory.seen, settled, window.number, lambda era=self._era: era == self._era)  # type: ignore[misc] # lambda default
        for batch in window.batches:
            self.edges.consumer().ack_batch(batch)
        self.edges.on_step("7.after")
        for tp in (None, *settled.spans):  # others' commits are no progress of a partition that fails
            self._strikes.pop(tp, None)
        self.health.green("capture")
        now = self.clock.monotonic()
        self.pause.commit(now)
        self.progress.committed(settled, head.vector, now)
        self.progress.landed(window, self.clock)
        self.plan.on_committed(settled)

    async def _watch_positions(self) -> None:
        """A foreign commit or a rollback moves the vector under us: compare what we last saw committed with the head."""
        while True:
            await asyncio.sleep(POSITION_CHECK_SECONDS)
            if not self._owns.is_set() or self._in_sink:
                continue
            era, committed = self._era, dict(self._committed)
            try:
                head = await self._in_sink_thread(self.edges.table.head)
            except K2Error as exc:
                self.health.red("table", str(exc))
                continue
            self.health.green("table")
            if self._closing is not None and era == self._era and self._owns.is_set() and not self._in_sink:
                self._closing.memory = replace(self._closing.memory, head=head)  # an idle worker's own would expire under its look-ups
            moved = [tp for tp, n in committed.items() if tp not in head.vector or head.vector[tp].next != n]
            if moved and era == self._era and self._owns.is_set() and committed == self._committed:
                await self.restart(f"the table's vector moved for {', '.join(f'{t}/{p}' for t, p in moved)}")

    async def _watch_log_ends(self) -> None:
        """For lag only: nothing is decided by it."""
        while True:
            await asyncio.sleep(LOG_ENDS_SECONDS)
            if not self._owns.is_set():
                continue
            try:
                bounds = await self.edges.consumer().bounds(list(self._committed))
            except K2Error as exc:
                log.debug("log_ends.unknown", cause=str(exc))
                continue
            self.progress.ends({tp: end for tp, (_, end) in bounds.items()})

    def state(self) -> dict[str, object]:
        """Sequences, filter, window and ledger of this data type."""
        closing = self._closing
        memory = {} if closing is None else {"sequences": closing.memory.tracker.summary(), "filter": closing.memory.seen.stats()}
        window = {"number": self._window.number, "rows": self._window.rows, "size_bytes": self._window.size_bytes}
        return {
            **self.progress.as_json(),
            "rebalance": self.pause.as_json(),
            "stages_cpu_seconds": self.stages.as_json(),
            "window": window,
            "paused": sorted(map(str, self._paused)),
            **memory,
        }

    # --- trouble --------------------------------------------------------------------------------------

    async def restart(self, cause: str, *, era: int | None = None) -> None:
        """Forget everything and read all owned partitions again from the table's vector; nothing if `era`, that of the cause, is over."""
        era = self._era if era is None else era
        async with self._restart_lock:
            if era != self._era:
                return
            log.warning("capture.restart", cause=cause, partitions=len(self._position))
            tps, is_ours = set(self._committed) - self._paused, self._owns.is_set()
            self.progress.restarted(tps)
            self._forget()
            if is_ours:  # else the next assignment asks for positions anyway
                await self.edges.consumer().restart(tps)

    async def _strike(self, tp: TopicPartition | None, exc: Exception) -> None:
        """Charge a failure; after three in a row the partition is paused, or, if no partition is to blame, the worker ends."""
        era = self._era
        strikes = self._strikes[tp] = self._strikes.get(tp, 0) + 1
        where = "sink" if tp is None else f"{tp.topic}/{tp.partition}"
        log.error("capture.failed", where=where, strikes=strikes, cause=str(exc), kind=type(exc).__name__, exc_info=not isinstance(exc, K2Error))
        self.health.red("capture", f"{where}: {exc}")
        if strikes >= STRIKES and tp is None:
            self._on_fatal(str(exc))
            return
        if strikes >= STRIKES and tp is not None:
            self._stop(tp)
            self.edges.consumer().pause_batch({tp})
            stands = f"{where} is paused at offset {self._committed.get(tp)} after {strikes} failures: {exc}."
            self.health.red(f"paused {where}", f"{stands} Mend the cause and start the worker again.")
        await asyncio.sleep(min(0.1 * 4 ** (strikes - 1), 5.0))
        await self.restart(str(exc), era=era)

    def _stop(self, tp: TopicPartition) -> None:
        self._paused.add(tp)
        self.progress.stopped(len(self._paused))

    def _forget(self) -> None:
        """Drop every batch, window and memory; whatever still runs in a thread comes back to an older era."""
        self._era += 1
        self._owns.clear()
        self._in_sink = 0
        self._since = {}
        self._intake.sift(self._counts)
        self._outstanding.clear()
        self._window = OpenWindow(self._window.number + 1, era=self._era)
        self._closing = None
        self._position = {}

    async def _in_sink_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._sink_thread, work)
