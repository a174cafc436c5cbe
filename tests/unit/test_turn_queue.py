"""However long the queue of turns, nobody in it falls silent."""

from k2stream.state.turn import SILENT_MS, poll_seconds


def test_who_stands_far_back_in_the_queue_keeps_the_place() -> None:
    """One that was not heard for SILENT_MS is put to the end: each asks several times within it, the first ones most often."""
    waits = [poll_seconds(place) for place in range(1000)]
    assert waits == sorted(waits)
    assert max(waits) * 1000 * 3 < SILENT_MS
    assert waits[0] < waits[1] < waits[4]
