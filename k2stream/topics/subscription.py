"""Which topics a subscription asks for: by name, pattern, exchange, asset class or data type; pure."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from k2stream.errors import SettingsError
from k2stream.topics.name import FEED_MARK, MARKET

ANY = (MARKET, "*", "*", "*")
SELECTORS = {"asset_class": 1, "data_type": 2, "exchange": 3}
"""Word before the colon -> which part of a topic's name it is about."""


def resolve(wanted: Sequence[str], existing: Iterable[str], data_type: str) -> list[str]:
    """Names of `existing`, of one data type, that any of `wanted` asks for, in order.

    Each is a name, a pattern in which `*` stands for one part, or a selector: `exchange:binance`, `asset_class:crypto`, `data_type:trades`.
    An exchange's redundant topics, as market.crypto.trades.binance-b, are its own. Letters never match, nor do topics of another contract,
    whatever is asked for. Raises SettingsError for an unknown selector.
    """
    patterns = [pattern.split(".") for word in wanted for pattern in _patterns_of(word)]
    return sorted(t for t in existing if _is_of(t, data_type) and any(_matches(p, t.split(".")) for p in patterns))


def _patterns_of(word: str) -> list[str]:
    selector, colon, value = word.partition(":")
    if not colon:
        return [word]
    if selector not in SELECTORS or not value:
        known = ", ".join(f"{name}:NAME" for name in SELECTORS)
        raise SettingsError(f"K2_TOPICS: {word!r}: expected {known}, a topic, or a pattern as market.crypto.trades.*.")
    values = (value, f"{value}{FEED_MARK}*") if selector == "exchange" else (value,)
    place = SELECTORS[selector]
    return [".".join([*ANY[:place], value, *ANY[place + 1 :]]) for value in values]


def _is_of(topic: str, data_type: str) -> bool:
    parts = topic.split(".")
    return len(parts) == 4 and parts[0] == MARKET and parts[SELECTORS["data_type"]] == data_type


def _matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    return len(pattern) == len(name) and all(fnmatchcase(n, p) for p, n in zip(pattern, name, strict=True))
