"""Waiting between tries: longer and longer, never for ever, never all feeds at once, never sooner than the venue asked."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from k2stream.feed.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff


@given(st.integers(0, 100_000), st.integers(1, 200))
def test_no_wait_is_longer_than_the_cap_or_shorter_than_half_of_its_bound(seed: int, failures: int) -> None:
    """However often it fails, it goes on."""
    backoff = Backoff(("a", "b"), Random(seed))
    waits = [backoff.failed() for _ in range(failures)]
    assert all(FIRST_SECONDS / 2 <= wait <= LONGEST_SECONDS for wait in waits)
    assert all(wait >= LONGEST_SECONDS / 2 for wait in waits[8:])


def test_what_the_venue_asks_for_is_waited_out() -> None:
    """Even beyond the cap: going on after 429 gets one banned."""
    assert Backoff(("a",), Random(1)).failed(300.0) == 300.0


def test_each_try_goes_elsewhere_and_success_stays() -> None:
    """The address that works is the first to be tried again."""
    backoff, tried = Backoff(("a", "b", "c"), Random(1)), []
    for _ in range(4):
        tried.append(backoff.url)
        backoff.failed()
    assert tried == ["a", "b", "c", "a"]
    assert backoff.url == "b"
    backoff.succeeded()
    assert (backoff.url, backoff.failures) == ("b", 0)
    backoff.failed()
    assert backoff.url == "a"
