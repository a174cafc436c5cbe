"""Every topic that k2stream reads or writes: its name, key, contract, partitions and retention; pure.

`market.{asset_class}.{data_type}.{exchange}`   Confluent-framed Avro of the data type's contract
`dlq.{asset_class}.{data_type}`                 dead letters of all exchanges of an asset class
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from k2stream.errors import SettingsError

MARKET, LETTERS = "market", "dlq"

ASSET_CLASSES = ("equities", "crypto")

DAY_MS = 86_400_000
KEPT_7_DAYS: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
KEPT_30_DAYS: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
COMPACTED: Mapping[str, str] = {"cleanup.policy": "compact", "min.compaction.lag.ms": "60000", "delete.retention.ms": str(DAY_MS)}


@dataclass(frozen=True, slots=True)
class TopicName:
    """The parts of a market topic's name; `str()` puts them together."""

    asset_class: str
    data_type: str
    exchange: str
    """Lower case in the topic; rows carry it as the venue writes it."""

    def __str__(self) -> str:
        return f"{MARKET}.{self.asset_class}.{self.data_type}.{self.exchange}"

    @classmethod
    def parse(cls, topic: str) -> "TopicName":
        """The parts of `topic`; raises SettingsError if it is not named as market topics are."""
        parts = topic.split(".")
        if len(parts) != 4 or parts[0] != MARKET or not all(parts):
            raise SettingsError(f"Topic {topic!r}: expected market.ASSET_CLASS.DATA_TYPE.EXCHANGE, as in market.equities.trades.asx. Correct K2_TOPICS.")
        return cls(*parts[1:])

    @property
    def subject(self) -> str:
        """Under which its contract is registered: one for all exchanges of an asset class, so that no exchange's rows can drift from the others'."""
        return f"{MARKET}.{self.asset_class}.{self.data_type}-value"

    @property
    def letters(self) -> str:
        """Where its dead letters go."""
        return letter_topic(self.asset_class, self.data_type)


@dataclass(frozen=True, slots=True)
class TopicKind:
    """What is true of all topics of one data type."""

    data_type: str
    key: str
    """Field of the contract that is the record's key."""
    schema: str
    """Contract under k2stream/schemas."""
    config: Mapping[str, str]
    partitions: int | None = None
    """None: as settings say."""


KINDS: Mapping[str, TopicKind] = {
    "trades": TopicKind("trades", "symbol", "trade_v2", KEPT_7_DAYS),
    "quotes": TopicKind("quotes", "symbol", "quote_v2", KEPT_7_DAYS),
    # A table of instruments is read whole and in order, so it has one partition.
    "reference_data": TopicKind("reference_data", "company_id", "reference_data_v2", COMPACTED, partitions=1),
}


def letter_topic(asset_class: str, data_type: str) -> str:
    """Topic of the dead letters of an asset class and data type."""
    return f"{LETTERS}.{asset_class}.{data_type}"


LETTER_TYPE = "dead_letters"
"""What the file of topics calls their data type."""

LETTER_TOPICS = tuple(letter_topic(asset_class, "trades") for asset_class in ASSET_CLASSES)
"""What the deadletters agent reads."""


SELECTORS = {"asset_class": 1, "data_type": 2, "exchange": 3}
"""Word before the colon -> which part of a topic's name it is about."""


def resolve(wanted: Sequence[str], existing: Iterable[str], data_type: str) -> list[str]:
    """Names of `existing`, of one data type, that any of `wanted` asks for, in order.

    Each is a name, a pattern in which `*` stands for one part, or a selector: `exchange:binance`, `asset_class:crypto`, `data_type:trades`.
    Letters never match, nor do topics of another contract, whatever is asked for. Raises SettingsError for an unknown selector.
    """
    patterns = [_pattern_of(word).split(".") for word in wanted]
    return sorted(t for t in existing if _is_of(t, data_type) and any(_matches(p, t.split(".")) for p in patterns))


def _pattern_of(word: str) -> str:
    selector, colon, value = word.partition(":")
    if not colon:
        return word
    if selector not in SELECTORS or not value:
        known = ", ".join(f"{name}:NAME" for name in SELECTORS)
        raise SettingsError(f"K2_TOPICS: {word!r}: expected {known}, a topic, or a pattern as market.crypto.trades.*.")
    parts = [MARKET, "*", "*", "*"]
    parts[SELECTORS[selector]] = value
    return ".".join(parts)


def _is_of(topic: str, data_type: str) -> bool:
    parts = topic.split(".")
    return len(parts) == 4 and parts[0] == MARKET and parts[SELECTORS["data_type"]] == data_type


def _matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    return len(pattern) == len(name) and all(fnmatchcase(n, p) for p, n in zip(pattern, name, strict=True))
