"""What an answer says it rests on."""

from k2stream.lake.offsets import Counts, Entry
from k2stream.query.receipt import Receipt
from k2stream.records import TopicPartition


def test_a_receipt_names_snapshot_offsets_and_freshness() -> None:
    """Everything that is needed to ask again, and how new the answer is."""
    vector = {TopicPartition("t", 1): Entry(0, 20), TopicPartition("t", 0): Entry(5, 1_000, Counts(dead_letters=3))}
    receipt = Receipt.of("trades", snapshot_id=7, vector=vector, watermark_us=1_394_452_800_000_000, files=2)

    assert receipt.as_json() == {
        "table": "trades",
        "snapshot_id": 7,
        "next": {"t/0": 1_000, "t/1": 20},
        "dead_letters": 3,
        "newest": "2014-03-10T12:00:00+00:00",
        "files": 2,
    }
    assert receipt.line() == ("From trades at snapshot 7: 2 data files, 1,020 offsets of 2 partitions, 3 dead letters, newest row of 2014-03-10 12:00:00 UTC.")


def test_an_empty_table_is_said_to_be_empty() -> None:
    """No snapshot is an answer too."""
    assert Receipt.of("trades", snapshot_id=None, vector={}, watermark_us=None, files=0).line() == "From trades, which is empty."
