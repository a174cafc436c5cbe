"""How a venue's REST endpoint is asked for trades by their numbers: questions and pages as values; pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from k2stream.errors import DecodeError
from k2stream.feed.frame import NewId, Row
from k2stream.number_spans import Span

PAGE_TRADES = 1000
"""The most that any of the venues gives at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Numbers that are wanted of one symbol, and the event times of the rows around their gap, microseconds since the epoch."""

    symbol: str
    first: int
    last: int
    previous_us: int
    next_us: int


@dataclass(frozen=True, slots=True)
class Question:
    """One GET."""

    path: str
    parameters: tuple[tuple[str, str], ...]
    cursor: int
    """Where it begins, as the venue counts: a trade's number or a time."""
    covered_from: int | None = None
    """The pages before spoke of all numbers below this one, of those that are wanted."""


@dataclass(frozen=True, slots=True)
class Page:
    """What an answer says."""

    trades: tuple[Row, ...]
    covers: Span | None
    """Numbers of which it names every trade that the venue has; None if it says nothing of any."""
    next: Question | None
    """None: it ends here."""


class Read(Protocol):
    """An answer's page; raises DecodeError for what is not as the venue's answers are."""

    def __call__(self, body: bytes, question: Question, wanted: Wanted, *, new_id: NewId, now_us: int) -> Page: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One venue's REST endpoint of trades."""

    venue: str
    url: str
    begin: Callable[[Wanted], Question]
    read: Read
    refusal: Callable[[bytes], str]
    """The venue's own words in an answer that refuses; empty if the body says nothing of the kind."""
    is_busy: Callable[[bytes], bool]
    """True for an answer of status 200 that means: too many requests."""
    per_second: float
    """Questions that the venue allows in the long run."""
    at_once: float
    """... and one after the other without a pause."""
    key_header: str = ""
    """Header that carries an API key, where the venue wants one."""


def numbers_of(trades: tuple[Row, ...]) -> tuple[int, int]:
    """The lowest and the highest number of trades in any order; there must be one."""
    found = [trade["source_sequence"] for trade in trades]
    return min(found), max(found)


def parsed_json(body: bytes, venue: str, kind: type) -> Any:
    """The answer's JSON, numbers as Decimals; raises DecodeError if it is none, or no `kind`."""
    try:
        found = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"Expected JSON of {venue}, found {body[:80]!r}: {exc}.") from exc
    if not isinstance(found, kind):
        raise DecodeError(f"Expected a JSON {kind.__name__} of {venue}, found {body[:80]!r}. Has the endpoint changed?")
    return found


def word_in(body: bytes, *keys: str) -> str:
    """The first of these entries of a JSON object, as a word; empty if there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    return next((str(found[key]) for key in keys if found.get(key)), "")
