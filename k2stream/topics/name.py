"""Names of topics; pure.

`market.{asset_class}.{data_type}.{exchange}`   Confluent-framed Avro of the data type's contract
`dlq.{asset_class}.{data_type}`                 dead letters of all exchanges of an asset class
"""

from dataclasses import dataclass
from functools import lru_cache

from k2stream.errors import SettingsError

MARKET, LETTERS = "market", "dlq"
FEED_MARK = "-"
"""Between an exchange and the name of a feed that has a topic of its own."""

ASSET_CLASSES = ("equities", "crypto")


@dataclass(frozen=True, slots=True)
class TopicName:
    """The parts of a market topic's name; `str()` puts them together."""

    asset_class: str
    data_type: str
    exchange: str
    """Lower case in the topic; rows carry it as the venue writes it. With a feed's name behind it, a redundant topic: see `venue`."""

    def __str__(self) -> str:
        return f"{MARKET}.{self.asset_class}.{self.data_type}.{self.exchange}"

    @classmethod
    @lru_cache(maxsize=1_024)  # of the class; names of topics are few
    def parse(cls, topic: str) -> "TopicName":
        """The parts of `topic`; raises SettingsError if it is not named as market topics are."""
        parts = topic.split(".")
        if len(parts) != 4 or parts[0] != MARKET or not all(parts):
            raise SettingsError(f"Topic {topic!r}: expected market.ASSET_CLASS.DATA_TYPE.EXCHANGE, as in market.equities.trades.asx. Correct K2_TOPICS.")
        return cls(*parts[1:])

    @property
    def venue(self) -> str:
        """Whose rows it holds: redundant topics are named after their feed too, as in market.crypto.trades.binance-b."""
        return self.exchange.partition(FEED_MARK)[0]

    @property
    def subject(self) -> str:
        """Under which its contract is registered: one for all exchanges of an asset class, so that no exchange's rows can drift from the others'."""
        return f"{MARKET}.{self.asset_class}.{self.data_type}-value"

    @property
    def letters(self) -> str:
        """Where its dead letters go."""
        return letter_topic(self.asset_class, self.data_type)


def letter_topic(asset_class: str, data_type: str) -> str:
    """Topic of the dead letters of an asset class and data type."""
    return f"{LETTERS}.{asset_class}.{data_type}"
