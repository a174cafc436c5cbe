"""How many bytes were read ahead of the agents, and when fetching must wait."""

import threading
import weakref
from collections.abc import Callable

from k2stream.records import Batch

BATCH_FLOOR_BYTES = 16 << 10
"""A batch counts as at least this much: its objects weigh a few kB however small it is, and with the default budget of
32 MB at most 2,048 events wait in a channel, below Faust's 4,096, so that a slow batch agent never blocks other topics."""


class ByteBudget:
    """Bytes of delivered batches that nobody has decoded yet; thread-safe.

    A batch counts until `release`, or until nobody holds it any more: Faust clears its queues at a rebalance, and what was
    in them is never released by an agent.
    """

    def __init__(self, limit_bytes: int, *, on_room: Callable[[], None]) -> None:
        self.limit_bytes = limit_bytes
        self._on_room = on_room
        self._held: dict[tuple[str, int, int, int], int] = {}
        self._spent_bytes = 0
        self._lock = threading.RLock()  # a finalizer may run inside `charge` of the same thread

    @property
    def spent_bytes(self) -> int:
        return self._spent_bytes

    @property
    def room_bytes(self) -> int:
        """What may still be fetched; 0 means stop. One fetch may overshoot by a log batch."""
        return max(0, self.limit_bytes - self._spent_bytes)

    def charge(self, batch: Batch, *, carrier: object) -> None:
        """Count `batch` until released or until `carrier`, the very batch, is gone."""
        key, size_bytes = _key(batch), max(batch.size_bytes, BATCH_FLOOR_BYTES)
        with self._lock:
            self._spent_bytes += size_bytes - self._held.get(key, 0)
            self._held[key] = size_bytes
        weakref.finalize(carrier, self._drop, key).atexit = False

    def release(self, batch: Batch) -> None:
        """The batch is decoded; twice is harmless."""
        self._drop(_key(batch))

    def _drop(self, key: tuple[str, int, int, int]) -> None:
        with self._lock:
            size_bytes = self._held.pop(key, 0)
            had_room = self._spent_bytes < self.limit_bytes
            self._spent_bytes -= size_bytes
            has_room = self._spent_bytes < self.limit_bytes
        if has_room and not had_room:
            self._on_room()


def _key(batch: Batch) -> tuple[str, int, int, int]:
    return batch.topic, batch.partition, batch.epoch, batch.first_offset
