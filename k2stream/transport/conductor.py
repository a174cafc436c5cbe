"""What our transports change in how Faust moves messages on: subscriptions in time, and no memory of batch offsets."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import faust
from faust.transport.conductor import Conductor
from faust.types import TP
from mode.utils.queues import ThrowableQueue


class KeepingTopic(faust.Topic):
    """A topic of batches: what waits for its agent stays there.

    Faust's own queue is emptied whenever flow is resumed, which a recovery of its tables does several times, and batches flow meanwhile. What
    is older than a rebalance is left out by its epoch.
    """

    _queue: ThrowableQueue[Any] | None = None

    @property
    def queue(self) -> ThrowableQueue[Any]:
        if self._queue is None:
            self._queue = self.app.FlowControlQueue(maxsize=self.maxsize, clear_on_resume=False)
        return self._queue


class BatchConductor(Conductor):
    """Faust's conductor; picks new topics up within a second instead of 45."""

    _resubscribe_sleep_lock_seconds = 1.0

    def ensure_subscribed(self) -> None:
        """Subscribe to topics that channels name and the consumer does not follow yet.

        Cheap when there are none; to be called again until done, as Faust forgets a change that falls into a rebalance.
        """
        if any(self._topic_contain_unsubscribed_topics(channel) for channel in self._topics):
            self._flag_changes()


class ReadOffsets(defaultdict[TP, int | None]):
    """Faust's last delivered offsets, without those of batch topics.

    Faust writes an entry *after* the delivery that a restart may have overtaken, and then drops everything below it: the
    partition would go silent. It also takes the way between two entries for acked. Batch topics keep their own position.
    """

    def __init__(self, is_batch_topic: Callable[[str], bool]) -> None:
        super().__init__(lambda: None)
        self._is_batch_topic = is_batch_topic

    def __getitem__(self, tp: TP) -> int | None:
        return None if self._is_batch_topic(tp.topic) else super().__getitem__(tp)
