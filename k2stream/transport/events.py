"""Records of topics that are no batches, one event each: a group's committed offsets, and flow once Faust's tables have recovered.

Batches make the consumer fetch while Faust recovers. Records of these topics must not come then: Faust empties the queues of their
agents at the end of its recovery, and whatever had come would be gone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport.consumer import ensure_TPset
from faust.types import TP

from k2stream.transport.patience import PatientConsumer


class EventConsumer(PatientConsumer):
    """Where per-event partitions are read from, and since when."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._event_starts: dict[TP, int] = {}
        self._events_are_due = self._events_flow = False
        """Recovery has sought them; and resumed flow since."""

    async def committed(self, tps: set[TP]) -> Mapping[TP, int | None]:
        """The group's committed offsets; a driver's to answer."""
        raise NotImplementedError

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Faust's hook: its recovery begins."""
        self._events_are_due = self._events_flow = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust's hook."""
        for tp in revoked:
            self._event_starts.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    def resume_flow(self) -> None:
        """Faust's hook. At the end of its recovery it resumes partitions, seeks, empties the queues of their agents, and then calls this."""
        super().resume_flow()
        self._events_flow = self._events_flow or self._events_are_due

    async def seek_due_events(self, tps: set[TP]) -> Mapping[TP, int]:
        """Recovery has ended: seek per-event partitions, waiting for a log that is away; they flow when flow is resumed next."""
        offsets: Mapping[TP, int] = await self.until_answered(lambda: self._seek_events(tps))
        self._events_are_due = True
        return offsets

    def event_flows(self, tp: TP) -> bool:
        """Whether a per-event partition may be fetched: changelogs always, they are what recovery reads."""
        return self._events_flow or bool(self._is_changelog_tp(tp))

    def forget_event_start(self, tp: TP) -> None:
        """The log no longer holds the position of `tp`: ask where it starts, and read from there."""
        self._event_starts.pop(tp, None)
        self.add_future(self.rewind_events({tp}))

    async def rewind_events(self, tps: Iterable[TP]) -> None:
        """Records were fetched that a rebalance keeps from their agents: read them again."""
        try:
            await self._seek_events(set(tps) & ensure_TPset(self.assignment()))
        except Exception as exc:  # partitions may be gone by now; the next assignment seeks anyway
            self.log.warning("Could not seek back after a rebalance: %r", exc)

    async def _seek_events(self, tps: set[TP]) -> dict[TP, int]:
        """Seek per-event partitions to the group's offsets, or where a group without one starts; never changelogs."""
        tps = {tp for tp in tps if not self._is_changelog_tp(tp)}
        offsets = {tp: offset for tp, offset in (await self.committed(tps)).items() if offset is not None} if tps else {}
        offsets.update(await self._starts(tps - offsets.keys()))
        if offsets:
            await self.seek_wait(offsets)
        return offsets

    async def _starts(self, tps: set[TP]) -> dict[TP, int]:
        """Where a group without committed offsets starts; remembered, or `latest` would skip what came meanwhile."""
        unknown = tps - self._event_starts.keys()
        if unknown:
            ask = self.earliest_offsets if self.app.conf.consumer_auto_offset_reset == "earliest" else self.highwaters
            self._event_starts.update({TP(*tp): int(offset or 0) for tp, offset in (await ask(*unknown)).items()})
        return {tp: self._event_starts[tp] for tp in tps}
