"""Topics of one venue that several feeds fill: what makes them one stream; pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from k2stream.errors import SettingsError
from k2stream.topics.name import FEED_MARK, TopicName


def require_co_partitioned(partitions: Mapping[str, int]) -> None:
    """Redundant topics must have equal numbers of partitions; raises SettingsError naming the first two that have not.

    A symbol has then the same partition number in all of them, and equal numbers are read by one worker into one window: there alone
    the second report of a trade is known before its first is committed, and gaps are judged over both.
    """
    first: dict[TopicName, str] = {}
    for topic in sorted(partitions):
        name = TopicName.parse(topic)
        other = first.setdefault(TopicName(name.asset_class, name.data_type, name.venue), topic)
        if partitions[other] != partitions[topic]:
            raise SettingsError(
                f"{other} has {partitions[other]} partitions and {topic} has {partitions[topic]}: topics of one venue need equal numbers, or a trade "
                f"that both report could become two rows. Grow the smaller one with `k2 topics apply`, or leave it out with K2_TOPICS."
            )


def redundant_topics(topics: Iterable[str]) -> frozenset[str]:
    """Those that share venue and data type with another: every trade is reported in each of them. Names of any form, as a foreign writer's may be."""
    by_venue: defaultdict[str, set[str]] = defaultdict(set)
    for topic in set(topics):
        by_venue[venue_topic(topic)].add(topic)
    return frozenset(topic for twins in by_venue.values() if len(twins) > 1 for topic in twins)


def venue_topic(topic: str) -> str:
    """The topic that all feeds of its venue share: market.crypto.trades.binance, of market.crypto.trades.binance-b; any other name as it is."""
    head, dot, exchange = topic.rpartition(".")
    return f"{head}{dot}{exchange.partition(FEED_MARK)[0]}"
