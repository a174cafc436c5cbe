"""The venues that are read live: where each answers, how it is asked, how its frames are read, how its silence is told from quiet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from k2stream.feed import binance, coinbase, kraken
from k2stream.feed.frame import Frame, NewId


class Read(Protocol):
    """A frame's rows; raises DecodeError."""

    def __call__(self, frame: bytes | str, *, new_id: NewId, now_us: int) -> Frame: ...


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one connection asks for."""

    path: str
    """Behind the address, the query string included."""
    messages: tuple[bytes, ...]
    """Sent after connecting."""


@dataclass(frozen=True, slots=True)
class Venue:
    """One venue; symbols are as it writes them."""

    name: str
    """Lower case, as in the topic's name."""
    urls: tuple[str, ...]
    """Tried in turn; settings may name others."""
    subscribe: Callable[[Sequence[str], bool], Subscription]
    """From symbols, and whether quotes are wanted too."""
    read: Read
    quiet_seconds: float | None
    """It sends something at least so often, trades or none, so that longer silence means a dead connection; None: only its answers to pings tell."""
    asset_class: str = "crypto"
    max_age_seconds: float = 23 * 3600.0
    """A connection is replaced at this age, before the venue cuts it at 24 hours."""


def _binance(symbols: Sequence[str], quotes: bool) -> Subscription:
    return Subscription(binance.stream_path(symbols, quotes=quotes), ())


def _kraken(symbols: Sequence[str], quotes: bool) -> Subscription:
    return Subscription("", tuple(kraken.subscriptions(symbols, quotes=quotes)))


def _coinbase(symbols: Sequence[str], quotes: bool) -> Subscription:
    return Subscription("", tuple(coinbase.subscriptions(symbols, quotes=quotes)))


BINANCE = Venue("binance", binance.URLS, _binance, binance.read, None)
KRAKEN = Venue("kraken", kraken.URLS, _kraken, kraken.read, 10.0)
COINBASE = Venue("coinbase", coinbase.URLS, _coinbase, coinbase.read, 10.0)

VENUES = {venue.name: venue for venue in (BINANCE, KRAKEN, COINBASE)}
