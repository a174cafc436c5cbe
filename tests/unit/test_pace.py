"""A replay keeps its rate, and knows after a death what it published and did not say."""

import pytest

from k2stream.deadletter.envelope import ATTEMPT_HEADER, FIRST_ORIGIN_HEADER, letter_of
from k2stream.deadletter.replay import Pace, outgoing, sent_of, unwritten_from
from k2stream.deadletter.trail import Sent, Writer, began, ended, published, trail_rows
from k2stream.records import Record
from k2stream.testing import a_reject

TOPIC = "market.equities.trades.asx"


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_us(self) -> int:
        return int(self.now * 1e6)


@pytest.mark.parametrize("rate", [0.5, 3.0, 50.0, 777.0, 5_000.0])
@pytest.mark.parametrize("cost_seconds", [0.0, 0.0005])
def test_the_rate_is_held_within_a_tenth(rate: float, cost_seconds: float) -> None:
    """Over ten seconds, and never more than its share and one chunk at any moment, however long a publish takes."""
    clock, letters = HandClock(), [letter_of(a_reject(TOPIC, 0, n)) for n in range(int(rate * 10) + 2)]
    pace, sent = Pace(rate, clock), 0
    for chunk in pace.chunks(letters):
        clock.now += pace.wait_seconds(len(chunk))
        assert sent <= rate * (clock.now - 100.0) + 1e-6
        sent += len(chunk)
        clock.now += cost_seconds
    assert sent == len(letters)
    assert abs(sent / (clock.now - 100.0) - rate) <= rate * 0.1 + len(chunk) / (clock.now - 100.0)


@pytest.mark.parametrize("rate", [50.0, 1_000.0])
def test_a_replay_that_was_held_up_does_not_make_up_for_it_in_a_burst(rate: float) -> None:
    """Five seconds before the first record and three in the middle: no second gets more than a tenth above its share and one chunk."""
    clock, letters, gone = HandClock(), [letter_of(a_reject(TOPIC, 0, n)) for n in range(int(rate * 10))], list[float]()
    pace = Pace(rate, clock)
    clock.now += 5.0
    for number, chunk in enumerate(pace.chunks(letters)):
        clock.now += pace.wait_seconds(len(chunk)) + (3.0 if number == 40 else 0.0)
        gone += [clock.now] * len(chunk)
    most = max(sum(at <= other < at + 1.0 for other in gone) for at in set(gone))
    assert most <= 1.1 * rate + len(chunk)


def test_without_a_rate_nothing_waits() -> None:
    """Chunks follow each other."""
    clock = HandClock()
    pace = Pace(None, clock)
    assert [pace.wait_seconds(500) for _ in range(9)] == [0.0] * 9


def rows(*acts: dict[str, object]) -> list[dict[str, object]]:
    return trail_rows(acts).to_pylist()


def test_a_replay_that_ended_leaves_nothing_to_look_for() -> None:
    """Its trail is whole, so the log is not read."""
    by = Writer("a", "me")
    trail = rows(began(by, 1, selection="", ends={(TOPIC, 0): 7}), published(by, 2, Sent("x", 1, TOPIC, 0, 7)), ended(by, 3))
    assert unwritten_from(trail) == ({}, set(), {(TOPIC, 0, 7)})


def test_a_replay_that_was_cut_off_is_looked_for_behind_what_it_said() -> None:
    """Each partition from its own place: behind the last record that the trail has, else where the log ended."""
    one, two = Writer("a", "me"), Writer("b", "me")
    trail = rows(
        began(one, 1, selection="", ends={(TOPIC, 0): 7, (TOPIC, 1): 9}),
        published(one, 2, Sent("x", 1, TOPIC, 0, 30)),
        began(two, 3, selection="", ends={(TOPIC, 1): 5}),
    )
    positions, cut_off, known = unwritten_from(trail)
    assert positions == {(TOPIC, 0): 31, (TOPIC, 1): 5}
    assert cut_off == {"a", "b"}
    assert known == {(TOPIC, 0, 30)}


def test_a_replayed_record_is_its_letters_record_but_for_its_two_headers() -> None:
    """Bytes, key and other headers as they came; a second life replaces the headers of the first."""
    headers = ((FIRST_ORIGIN_HEADER, b"x/0/1"), ("h", b"\x00"), (ATTEMPT_HEADER, b"1"))
    reject = a_reject(TOPIC, 0, 9, key=b"k")
    letter = letter_of(type(reject)(*(getattr(reject, f) if f != "headers" else headers for f in reject.__dataclass_fields__)))
    record = outgoing(letter, None, 5)
    assert (record.key, record.value, record.timestamp_ms) == (b"k", reject.value, 5)
    assert record.headers == (("h", b"\x00"), (FIRST_ORIGIN_HEADER, b"x/0/1"), (ATTEMPT_HEADER, b"2"))
    again = sent_of(Record(TOPIC, 0, 12, 5, record.key, record.value, record.headers))
    assert again == Sent("x/0/1", 2, TOPIC, 0, 12)
    assert outgoing(letter, (b"K", b"mended"), 5).value == b"mended"
    assert sent_of(Record(TOPIC, 0, 12, 5, b"k", b"v", ())) is None
