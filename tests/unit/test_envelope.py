"""Letters keep the record's bytes exactly, whatever they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2stream.deadletter.envelope import ATTEMPT_HEADER, FIRST_ORIGIN_HEADER, decode_letter, encode_letter, letter_of, origin_of, parse_origin
from k2stream.errors import DecodeError
from k2stream.verdict import Reason, Reject

maybe_bytes = st.none() | st.binary(max_size=50)
rejects = st.builds(
    Reject,
    topic=st.just("market.equities.trades.asx"),
    partition=st.integers(0, 100),
    offset=st.integers(0, 1 << 50),
    timestamp_ms=st.integers(-1, 1 << 45),
    key=maybe_bytes,
    value=maybe_bytes,
    headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.binary(max_size=9)), max_size=3).map(tuple),
    reason=st.sampled_from(Reason),
    text=st.text(st.characters(codec="utf-8"), max_size=20),
    schema_id=st.none() | st.integers(0, 1 << 31),
)


@given(rejects)
def test_a_letter_reads_back_as_it_was_written(reject: Reject):
    """Bytes, headers and reason survive JSON unchanged."""
    letter = letter_of(reject)
    assert decode_letter(encode_letter(letter)) == letter


@given(st.binary(max_size=200))
def test_foreign_bytes_in_the_letter_topic_are_named_as_such(value: bytes):
    """Anything else in the topic is a DecodeError, never another exception."""
    with pytest.raises(DecodeError):
        decode_letter(value)


def test_a_lone_surrogate_in_a_text_does_not_lose_the_letter():
    """Text made from broken UTF-8 must not stop a letter."""
    reject = Reject("market.a.trades.b", 0, 1, 0, None, b"\xff", (("h\udc80", b"x"),), Reason.INVALID_UTF8, "found '\udcff'", None)
    assert decode_letter(encode_letter(letter_of(reject))).value == b"\xff"


def test_a_replayed_record_counts_its_attempts_from_its_first_origin():
    """A letter that dies again says which record it is and how often it died."""
    headers = ((FIRST_ORIGIN_HEADER, b"market.a.trades.b/0/7"), (ATTEMPT_HEADER, b"2"))
    letter = letter_of(Reject("market.a.trades.b", 0, 99, 0, None, b"", headers, Reason.TRUNCATED, "", None))
    assert (letter.first_origin, letter.attempt, letter.origin) == ("market.a.trades.b/0/7", 3, "market.a.trades.b/0/99")


def test_an_origin_is_parsed_from_its_end():
    """Topic names may hold anything but end before the last two slashes."""
    assert parse_origin(origin_of("a/b", 3, 12)) == ("a/b", 3, 12)
    with pytest.raises(DecodeError):
        parse_origin("nonsense")
