"""What a worker says of itself while it knows nothing for certain."""

from k2stream import metrics
from k2stream.capture.progress import Progress
from k2stream.lake.offsets import Entry
from k2stream.records import TopicPartition

TP, OTHER_TP = TopicPartition("market.crypto.trades.binance", 0), TopicPartition("market.crypto.trades.binance", 1)


def test_no_lag_of_zero_is_told_while_all_is_read_again_from_a_table_that_was_rolled_back() -> None:
    """What was known before the restart is no longer true, and what is true the next assignment says."""
    progress = Progress("trades")
    progress.assigned({TP: Entry(0, 100)}, {TP}, {TP: 100})
    assert (progress.as_json()["lag"], len(progress.as_json()["partitions"])) == (0, 1)

    progress.restarted({TP})
    assert progress.as_json()["partitions"] == []
    assert progress.lags() == {}

    progress.assigned({TP: Entry(0, 40)}, {TP}, {TP: 100})
    assert progress.lags() == {TP: 60}


def test_a_partition_that_stands_still_is_shown_after_a_restart_of_the_others() -> None:
    """It is not read again, so no assignment brings it back; where it stands is known as before."""
    progress = Progress("trades")
    progress.assigned({TP: Entry(0, 60), OTHER_TP: Entry(0, 7)}, {TP, OTHER_TP}, {TP: 100, OTHER_TP: 7})

    progress.restarted({OTHER_TP})
    assert [(p["partition"], p["next"]) for p in progress.as_json()["partitions"]] == [(0, 60)]
    assert progress.lags() == {TP: 40}


def test_the_metric_of_lag_stays_while_the_table_cannot_be_read() -> None:
    """An alert of lag ends when the rows are in the table, not when nobody knows."""
    progress = Progress("quotes")
    progress.assigned({TP: Entry(0, 60)}, {TP}, {TP: 100})

    progress.restarted({TP})
    assert metrics.REGISTRY.get_sample_value("k2_lag_offsets", {"data_type": "quotes"}) == 40
