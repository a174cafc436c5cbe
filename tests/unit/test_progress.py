"""What a worker says of itself while it knows nothing for certain."""

from k2stream.capture.progress import Progress
from k2stream.lake.offsets import Entry
from k2stream.records import TopicPartition

TP = TopicPartition("market.crypto.trades.binance", 0)


def test_no_lag_of_zero_is_told_while_all_is_read_again_from_a_table_that_was_rolled_back() -> None:
    """What was known before the restart is no longer true, and what is true the next assignment says."""
    progress = Progress("trades")
    progress.assigned({TP: Entry(0, 100)}, {TP}, {TP: 100})
    assert (progress.as_json()["lag"], len(progress.as_json()["partitions"])) == (0, 1)

    progress.restarted()
    progress.ends({TP: 100})
    assert progress.as_json()["partitions"] == []
    assert progress.lags() == {}

    progress.assigned({TP: Entry(0, 40)}, {TP}, {TP: 100})
    assert progress.lags() == {TP: 60}
