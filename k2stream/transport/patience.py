"""A consumer whose questions to the log wait for it: Faust's recovery asks in the middle of a rebalance, and ends the worker if nobody answers."""

import itertools
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.consumer import ThreadDelegateConsumer
from faust.types import TP

from k2stream.errors import TransportError
from k2stream.records import TopicPartition

T = TypeVar("T")

BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class PatientConsumer(ThreadDelegateConsumer):
    """Where partitions begin and end."""

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """For Faust; waits for a log that is away."""
        return await self.until_answered(lambda: self._thread.earliest_offsets(*partitions))

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """For Faust; waits for a log that is away."""
        return await self.until_answered(lambda: self._thread.highwaters(*partitions))

    async def bounds(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """For ourselves; raises TransportError if the log does not answer."""
        keys = [TP(*tp) for tp in tps]
        try:
            begins, ends = (await self._thread.earliest_offsets(*keys), await self._thread.highwaters(*keys)) if keys else ({}, {})
        except KafkaError as exc:
            raise TransportError(f"Where {len(keys)} partitions begin and end is not known: {exc!r}. Is the broker running?") from exc
        return {TopicPartition(*key): (int(begins[key]), int(ends[key])) for key in keys}

    async def until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the log answers, however long it is away; raises IllegalStateError for a partition that is not ours any more."""
        for delay_seconds in itertools.chain(BACKOFF_SECONDS, itertools.repeat(BACKOFF_SECONDS[-1])):
            try:
                return await ask()
            except IllegalStateError:
                raise
            except (KafkaError, TransportError) as exc:
                if self.should_stop:
                    raise
                self.log.warning("Faust waits for the log, which is asked again in %.1f s: %r", delay_seconds, exc)
            await self.sleep(delay_seconds)
        raise AssertionError("the pauses have no end")
