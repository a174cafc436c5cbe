"""The byte budget of reading ahead: never negative, never leaking, and it says when there is room again."""

import threading

import pytest

from k2stream.records import Batch
from k2stream.transport.budget import BATCH_FLOOR_BYTES, ByteBudget

LIMIT = 10 * BATCH_FLOOR_BYTES


class Carrier:
    """Stands for the batch as it was delivered: the budget only watches whether it is still there."""


class Room:
    """Counts how often room was announced."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def batch(first: int = 0, size_bytes: int = BATCH_FLOOR_BYTES, epoch: int = 1) -> Batch:
    """A batch that weighs so much."""
    return Batch("t", 0, first, first + 1, (), size_bytes, epoch)


@pytest.fixture
def room() -> Room:
    """What is called when there is room again."""
    return Room()


def test_room_is_announced_once_when_it_comes_back(room: Room) -> None:
    """The fetch that waits is woken at the border, not at every release."""
    budget = ByteBudget(LIMIT, on_room=room)
    carriers = [Carrier() for _ in range(2)]
    budget.charge(batch(0, LIMIT), carrier=carriers[0])
    budget.charge(batch(1, LIMIT), carrier=carriers[1])
    assert budget.room_bytes == 0
    budget.release(batch(0, LIMIT))
    assert room.times == 0
    budget.release(batch(1, LIMIT))

    assert (room.times, budget.spent_bytes, budget.room_bytes) == (1, 0, LIMIT)


def test_release_twice_gives_back_once(room: Room) -> None:
    """Agent and ack both release; the budget must not grow by it."""
    budget = ByteBudget(LIMIT, on_room=room)
    carriers = Carrier(), Carrier()
    budget.charge(batch(0), carrier=carriers[0])
    budget.charge(batch(1), carrier=carriers[1])
    budget.release(batch(0))
    budget.release(batch(0))

    assert budget.spent_bytes == BATCH_FLOOR_BYTES


def test_dropped_event_gives_its_bytes_back(room: Room) -> None:
    """Faust clears its queues at a rebalance: what nobody will release must not count for ever."""
    budget = ByteBudget(LIMIT, on_room=room)
    carrier = Carrier()
    budget.charge(batch(0), carrier=carrier)
    del carrier

    assert budget.spent_bytes == 0


def test_batch_counts_as_long_as_somebody_holds_it(room: Room) -> None:
    """An agent keeps the batch and lets Faust's event go: its bytes are still in memory."""
    budget = ByteBudget(LIMIT, on_room=room)
    kept = [batch(0)]
    budget.charge(kept[0], carrier=kept[0])
    held_bytes = budget.spent_bytes
    kept.clear()

    assert (held_bytes, budget.spent_bytes) == (BATCH_FLOOR_BYTES, 0)


def test_stale_release_leaves_the_new_epoch_alone(room: Room) -> None:
    """The same offsets read again after a restart are another batch."""
    budget = ByteBudget(LIMIT, on_room=room)
    carriers = Carrier(), Carrier()
    budget.charge(batch(0, epoch=1), carrier=carriers[0])
    budget.charge(batch(0, epoch=2), carrier=carriers[1])
    budget.release(batch(0, epoch=1))

    assert budget.spent_bytes == BATCH_FLOOR_BYTES


def test_tiny_batches_are_not_free(room: Room) -> None:
    """Objects weigh too: a flood of one-row batches fills the budget before it fills Faust's queues."""
    budget = ByteBudget(LIMIT, on_room=room)
    carriers = [Carrier() for _ in range(10)]
    for n, carrier in enumerate(carriers):
        budget.charge(batch(n, size_bytes=70), carrier=carrier)

    assert budget.room_bytes == 0


def test_releases_from_many_threads_add_up(room: Room) -> None:
    """Decode threads release while the loop charges."""
    budget = ByteBudget(LIMIT, on_room=room)
    carriers = [Carrier() for _ in range(400)]
    for n, carrier in enumerate(carriers):
        budget.charge(batch(n), carrier=carrier)
    threads = [threading.Thread(target=lambda k=k: [budget.release(batch(n)) for n in range(k, 400, 4)]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (budget.spent_bytes, room.times) == (0, 1)
