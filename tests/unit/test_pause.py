"""The pause of a rebalance is counted from the first moment without partitions, once."""

from k2stream.capture.pause import Pause


def test_rebalance_within_a_rebalance_is_one_longer_pause() -> None:
    """What a storm costs would look small if each of its rebalances began the count anew."""
    pause = Pause("trades")
    pause.begin(10.0)
    pause.assigned(11.0, kept=3, restored=1)
    pause.begin(12.0)
    pause.assigned(13.0, kept=2, restored=0)
    pause.batch(14.5)
    pause.commit(16.0)
    assert pause.as_json() == {
        "rebalances": 2, "kept": 2, "restored": 0, "assigned_seconds": 3.0, "first_batch_seconds": 4.5, "first_commit_seconds": 6.0,
    }  # fmt: skip


def test_commit_of_what_was_taken_away_does_not_end_the_pause() -> None:
    """A window in flight lands while nothing is owned: partitions still stand still."""
    pause = Pause("trades")
    pause.begin(10.0)
    pause.commit(10.5)
    pause.batch(10.6)
    assert (pause.commit_seconds, pause.batch_seconds) == (None, None)


def test_first_assignment_is_no_pause() -> None:
    """A worker that starts has taken nothing from anybody."""
    pause = Pause("trades")
    pause.assigned(1.0, kept=0, restored=8)
    pause.batch(2.0)
    pause.commit(3.0)
    assert (pause.rebalances, pause.assigned_seconds, pause.batch_seconds, pause.commit_seconds) == (0, None, None, None)


def test_batches_after_the_first_change_nothing() -> None:
    """The pause of an old rebalance must not grow with every batch."""
    pause = Pause("trades")
    pause.begin(10.0)
    pause.assigned(11.0, kept=0, restored=1)
    for moment in (12.0, 20.0):
        pause.batch(moment)
        pause.commit(moment)
    assert (pause.batch_seconds, pause.commit_seconds) == (2.0, 2.0)
