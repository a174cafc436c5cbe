"""What a feed's numbers say, one danger at a time."""

from typing import Any

import msgpack
import pyarrow as pa
import pytest

from k2stream import sequence_state
from k2stream.gaps import EVENTS, Loss, Notes, Tracker
from k2stream.records import TopicPartition
from k2stream.testing import a_reject, trade_rows
from k2stream.verdict import Marker

TOPIC = "market.equities.trades.asx"
TP, OTHER_TP = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
NINE = 1_394_442_000_000_000
MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000


class Feed:
    """A tracker and the log it reads: one partition, every record a minute after the one before."""

    def __init__(self) -> None:
        self.tracker = Tracker("trades", 10)
        self.next, self.now_us = 0, NINE
        self._rows: list[dict[str, Any]] = []
        self._markers: list[Marker] = []
        self._rejects: list[Any] = []

    def rows(self, *numbers: int | None, symbol: str = "BHP", time_us: int | None = None, partition: int = 0) -> "Feed":
        for number in numbers:
            at = self._place() if time_us is None else (self._place()[0], time_us)
            row = {"symbol": symbol, "source_sequence": number, "timestamp": at[1], "offset": at[0], "topic": TOPIC, "partition": partition}
            self._rows.append(row)
        return self

    def marker(self, kind: str, session: str = "2014-03-10", *, time_us: int | None = None) -> "Feed":
        offset, now_us = self._place()
        self._markers.append(Marker(TOPIC, 0, offset, "BHP", kind, session, now_us if time_us is None else time_us))
        return self

    def reject(self, key: bytes | None = b"BHP") -> "Feed":
        self._rejects.append(a_reject(TOPIC, 0, self._place()[0], key))
        return self

    def silence(self, microseconds: int) -> "Feed":
        self.now_us += microseconds
        return self

    def window(self, *losses: Loss) -> list[tuple[str, int, int, int, str]]:
        """Settle what was fed; (kind, first, last, missing, cause) of each event."""
        events = self.events(*losses)
        return [(e["kind"], e["first_sequence"], e["last_sequence"], e["missing"], e["cause"]) for e in events.to_pylist()]

    def events(self, *losses: Loss) -> pa.Table:
        notes = Notes(tuple(self._markers), tuple(self._rejects), losses)
        rows = sorted(self._rows, key=lambda r: (r["partition"], r["offset"]))
        self._rows, self._markers, self._rejects = [], [], []
        return self.tracker.settle(trade_rows(rows), notes)

    def _place(self) -> tuple[int, int]:
        self.next, self.now_us = self.next + 1, self.now_us + MINUTE_US
        return self.next - 1, self.now_us


@pytest.fixture
def feed() -> Feed:
    return Feed()


def test_the_first_row_of_a_stream_opens_nothing(feed: Feed) -> None:
    """A worker that starts in the middle of a day does not call the morning missing."""
    assert feed.rows(4711, 4712).window() == []


def test_a_gap_shrinks_splits_and_is_filled_row_by_row(feed: Feed) -> None:
    """None merged, none cancelled, though all of it happens inside one window; each names the gap as it was opened."""
    found = feed.rows(1, 5, 3, 2, 4).window()

    assert found == [
        ("opened", 2, 4, 3, "upstream"),
        ("shrunk", 2, 4, 2, "upstream"),
        ("shrunk", 2, 4, 1, "upstream"),
        ("filled", 2, 4, 0, "upstream"),
    ]


def test_events_are_whole_and_in_the_order_of_records(feed: Feed) -> None:
    """What the gaps table gets: both rows around the gap, and where the later one came from."""
    events = feed.rows(1).rows(1, symbol="ANZ").rows(30).rows(3, symbol="ANZ").events()

    assert events.schema == EVENTS
    first, second = events.to_pylist()
    assert (first["symbol"], first["severity"], first["offset"], first["previous_offset"]) == ("BHP", "large", 2, 0)
    assert (second["symbol"], second["severity"], second["offset"], second["previous_offset"]) == ("ANZ", "small", 3, 1)
    assert (first["exchange"], first["data_type"], first["topic"], first["partition"]) == ("ASX", "trades", TOPIC, 0)
    assert (first["timestamp"] - first["previous_timestamp"]).total_seconds() == 120
    assert first["event_id"] != second["event_id"]


def test_the_same_records_give_the_same_ids_in_other_windows(feed: Feed) -> None:
    """What was taken to the gaps table before a rollback is recognised after it."""
    whole = feed.rows(1, 5, 3, 9).events()
    again = Feed()
    cut = pa.concat_tables([again.rows(1, 5).events(), again.rows(3).events(), again.rows(9).events()])

    assert cut.equals(whole)


def test_ten_missing_are_small_and_eleven_are_large(feed: Feed) -> None:
    """The border is where the setting says."""
    events = feed.rows(1, 12, 24).events()

    assert events["severity"].to_pylist() == ["small", "large"]


def test_rows_that_fill_a_gap_one_after_the_other_are_an_event_each(feed: Feed) -> None:
    """A back-fill brings thousands at once: the same events, with the same ids, as when they come one by one."""
    other, arrivals = Feed(), ([1, 60], range(2, 42), range(1, 50), range(42, 60))
    each = [pa.concat_tables(other.rows(number, time_us=NINE).events() for number in numbers) for numbers in arrivals]
    at_once = [feed.rows(*numbers, time_us=NINE).events() for numbers in arrivals]

    assert [events.num_rows for events in at_once] == [1, 40, 8, 10]
    assert [events.to_pylist() for events in at_once] == [events.to_pylist() for events in each]
    assert at_once[-1]["kind"].to_pylist()[-1] == "filled"
    assert feed.tracker.snapshot(TP) == other.tracker.snapshot(TP)


def test_a_gap_filled_in_pieces_of_one_is_judged_row_by_row(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of events for each row would take twenty times as long: every second number came before, and now they all come."""
    tables = []
    monkeypatch.setattr(Tracker, "_events_of_many", lambda *arguments: tables.append(arguments))
    feed.rows(1, 1_001, *range(2, 1_000, 2), time_us=NINE).window()

    assert len(feed.rows(*range(2, 1_000), time_us=NINE).window()) == 499
    assert not tables


def test_rows_of_a_new_session_do_not_fill_gaps_of_the_old_one_though_they_are_many(feed: Feed) -> None:
    """Their numbers are missing there."""
    feed.rows(1, 100).marker("session_start")

    assert feed.rows(*range(2, 60)).window() == [("opened", 2, 99, 98, "upstream"), ("reset", 100, 2, 0, "upstream")]


def test_a_late_row_outside_every_gap_changes_nothing(feed: Feed) -> None:
    """A number that is not missing cannot fill, and must not move the stream back."""
    assert feed.rows(7, 8, 3, 8, 9).window() == []
    assert feed.tracker.summary() == {"streams": 1, "open_gaps": 0, "missing": 0, "untracked": 0}


def test_rows_without_a_number_are_counted_and_leave_a_gap(feed: Feed) -> None:
    """A lost number is missing even if its row came."""
    assert feed.rows(1, None, 3).window() == [("opened", 2, 2, 1, "upstream")]
    assert feed.tracker.summary()["untracked"] == 1
    assert feed.rows(None, None).window() == []


def test_a_reset_is_reachable(feed: Feed) -> None:
    """Numbers that fall by more than half after an hour of silence begin anew; the next ones are not late."""
    assert feed.rows(100, 101).silence(HOUR_US).rows(1, 2, 4).window() == [("reset", 101, 1, 0, "upstream"), ("opened", 3, 3, 1, "upstream")]


@pytest.mark.parametrize(("silence_us", "number"), [(HOUR_US - 2 * MINUTE_US, 1), (HOUR_US, 51), (-DAY_US, 1)])
def test_disorder_is_no_reset(feed: Feed, silence_us: int, number: int) -> None:
    """Too soon, too shallow a fall, or an older row: late."""
    assert feed.rows(101).silence(silence_us).rows(number).rows(102).window() == []


def test_a_session_start_resets_whatever_the_number(feed: Feed) -> None:
    """Even if it is the expected one, for the stream is another."""
    assert feed.rows(1, 2).marker("session_start").rows(3, 4).window() == [("reset", 2, 3, 0, "upstream")]


def test_a_session_start_reaches_a_row_of_a_later_window(feed: Feed) -> None:
    """Also over a restart in between."""
    feed.rows(1, 2).marker("session_start").window()
    blob = feed.tracker.snapshot(TP)
    feed.tracker = Tracker("trades", 10)

    assert feed.tracker.restore(TP, blob)
    assert feed.rows(1).window() == [("reset", 2, 1, 0, "upstream")]


def test_a_marker_twice_is_harmless(feed: Feed) -> None:
    """A publisher that starts anew says again what session it is; so may one of yesterday."""
    feed.rows(1, 2).marker("session_start", "2014-03-11").rows(1, 2).window()

    assert feed.marker("session_start", "2014-03-11").rows(3).window() == []
    assert feed.marker("session_start", "2014-03-10").rows(4).window() == []
    feed.marker("session_start", "2014-03-12").marker("session_start", "2014-03-11")
    assert feed.rows(1).window() == [("reset", 4, 1, 0, "upstream")]


def test_a_marker_before_the_first_row_does_not_reset_the_second(feed: Feed) -> None:
    """A new stream begins with its session; nothing of it ended."""
    assert feed.marker("session_start").window() == []
    assert feed.rows(1).window() == []
    assert feed.marker("session_start").rows(2).window() == []


def test_late_by_session_fills_its_own_session_only(feed: Feed) -> None:
    """Yesterday's number 3 must not fill today's, and yesterday's high numbers open nothing today."""
    found = feed.rows(1, 5).silence(DAY_US).marker("session_start").rows(1, 4).rows(3, 99, time_us=NINE + MINUTE_US).rows(5).window()

    assert found == [
        ("opened", 2, 4, 3, "upstream"),
        ("reset", 5, 1, 0, "upstream"),
        ("opened", 2, 3, 2, "upstream"),
        ("shrunk", 2, 4, 2, "upstream"),
    ]
    assert feed.tracker.summary()["missing"] == 4


def test_rows_between_the_marker_and_its_first_row_are_of_the_new_session(feed: Feed) -> None:
    """Trades of the opening second are out of order in time; only what is older than the session is late."""
    feed.rows(1, 2).silence(DAY_US)
    opening_us = feed.now_us

    found = feed.marker("session_start", time_us=opening_us).rows(1, time_us=opening_us + 5).rows(2, 3, time_us=opening_us + 1).window()

    assert [kind for kind, *_ in found] == ["reset"]


def test_a_rejected_record_is_the_cause_and_its_replay_the_fill(feed: Feed) -> None:
    """The dead letter explains the gap; mended, it closes it, and the cause stays what it was."""
    assert feed.rows(1).reject().rows(3).window() == [("opened", 2, 2, 1, "dead_letter")]
    assert feed.rows(2).window() == [("filled", 2, 2, 0, "dead_letter")]


@pytest.mark.parametrize("key", [b"ANZ", None, b"\xff\xfe", b""])
def test_a_rejected_record_of_somebody_else_explains_nothing(feed: Feed, key: bytes | None) -> None:
    """Only the record's own key says whose it was, and it may be unreadable."""
    assert feed.rows(1).reject(key).rows(3).window() == [("opened", 2, 2, 1, "upstream")]


def test_a_cause_explains_one_gap_only(feed: Feed) -> None:
    """It must lie between the two rows, not merely before the second; a late row in between hides nothing."""
    assert feed.rows(1).reject().rows(2, 4).window() == [("opened", 3, 3, 1, "upstream")]
    assert feed.reject().rows(3, 6).window() == [("filled", 3, 3, 0, "upstream"), ("opened", 5, 5, 1, "dead_letter")]


def test_a_cause_is_remembered_between_windows(feed: Feed) -> None:
    """A window ends wherever it ends."""
    feed.rows(1).window()
    feed.reject().window()

    assert feed.rows(3).window() == [("opened", 2, 2, 1, "dead_letter")]


def test_a_reconnect_is_the_strongest_cause(feed: Feed) -> None:
    """What a feed says of itself goes before what we saw."""
    assert feed.rows(1).reject().marker("reconnect").rows(30).window() == [("opened", 2, 29, 28, "feed_reconnect")]


def test_a_reconnect_older_than_the_stream_explains_nothing(feed: Feed) -> None:
    """A recording played again sends its markers again."""
    assert feed.rows(1).marker("reconnect", time_us=NINE).rows(3).window() == [("opened", 2, 2, 1, "upstream")]


def test_a_lost_stretch_of_the_topic_explains_gaps_of_every_symbol(feed: Feed) -> None:
    """Nobody can say whose records they were."""
    feed.rows(1).rows(1, symbol="ANZ")
    feed.next += 10

    found = feed.rows(5).rows(5, symbol="ANZ").window(Loss(TOPIC, 0, 2, 11))

    assert [cause for *_, cause in found] == ["topic_loss", "topic_loss"]


def test_numbers_of_a_stream_go_on_in_another_partition(feed: Feed) -> None:
    """A grown topic moves symbols; a note of the old partition says nothing of the new one."""
    feed.rows(1, 2).reject().window()

    assert feed.rows(3, 5, partition=1).window() == [("opened", 4, 4, 1, "upstream")]
    assert msgpack.unpackb(feed.tracker.snapshot(TP))[3] == []

    other = Tracker("trades", 10)
    assert other.restore(OTHER_TP, feed.tracker.snapshot(OTHER_TP))
    assert other.summary()["open_gaps"] == 1


def test_older_state_of_a_stream_that_moved_is_not_taken(feed: Feed) -> None:
    """The old partition's last state lies in the store for as long as nothing else comes there."""
    feed.rows(1, 2).window()
    old = feed.tracker.snapshot(TP)
    feed.rows(3, 4, partition=1).window()
    new = feed.tracker.snapshot(OTHER_TP)

    for order in ([(TP, old), (OTHER_TP, new)], [(OTHER_TP, new), (TP, old)]):
        feed.tracker = Tracker("trades", 10)
        assert all(feed.tracker.restore(tp, blob) for tp, blob in order)
        assert feed.rows(5, partition=1).window() == []


@pytest.mark.parametrize("blob", [b"", b"\xc1", b"no", msgpack.packb((2, "trades", 0, [], [[], []])), msgpack.packb((1, "quotes", 0, [], [[], []]))])
def test_state_of_another_kind_is_refused(blob: bytes) -> None:
    """Damaged, of another version, of another data type: the table's rows are read instead."""
    assert not Tracker("trades", 10).restore(TP, blob)


def test_garbage_keys_do_not_fill_the_memory(feed: Feed) -> None:
    """A producer of nonsense makes as many keys as it likes."""
    for n in range(1000):
        feed.reject(f"nonsense-{n}".encode())
    feed.window()

    assert len(feed.tracker.snapshot(TP)) < 100


def test_a_feed_numbered_over_all_symbols_does_not_fill_the_memory(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of it opens a gap; the oldest are forgotten, and what fills them is late."""
    monkeypatch.setattr(sequence_state, "OPEN_GAPS", 100)
    feed.rows(*range(0, 2000, 2)).window()

    assert feed.tracker.summary()["open_gaps"] == 100
    assert feed.rows(1).window() == []
    assert feed.rows(1997).window() == [("filled", 1997, 1997, 0, "upstream")]


def test_the_oldest_unfilled_session_is_forgotten(feed: Feed) -> None:
    """Days that nobody mends do not pile up for ever; what is remembered can still be filled by its own late rows."""
    days = [NINE + day * DAY_US for day in range(10)]
    for day_us in days:
        feed.now_us = day_us
        feed.marker("session_start", f"{day_us}").rows(1, 3).window()

    assert feed.tracker.summary()["open_gaps"] == 9
    assert feed.rows(2, time_us=days[0] + 2 * MINUTE_US).window() == []
    assert feed.rows(2, time_us=days[1] + 2 * MINUTE_US).window() == [("filled", 2, 2, 0, "upstream")]
    assert feed.tracker.summary()["open_gaps"] == 8


def test_the_smallest_number_does_not_follow_the_largest(feed: Feed) -> None:
    """Their difference wraps to one; what follows must still be compared with the largest."""
    largest, smallest = (1 << 63) - 1, -(1 << 63)

    assert feed.rows(largest - 2, largest - 1, largest, smallest, smallest + 1).window() == []
    assert feed.tracker.settle(trade_rows([]), Notes()).num_rows == 0
    assert feed.rows(smallest + 5).window() == []


def test_a_window_of_nothing_new_still_takes_its_notes(feed: Feed) -> None:
    """All rows were duplicates: no event, and the marker is known."""
    feed.rows(1).window()

    assert feed.marker("reconnect").events().num_rows == 0
    assert feed.rows(3).window() == [("opened", 2, 2, 1, "feed_reconnect")]
