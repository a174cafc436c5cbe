"""Every topic that k2stream reads or writes: its name, key, contract, partitions and retention.

What is imported from here is pure; `files` reads the file that declares topics, `plan` compares it with a log, `admin` carries a plan
out, `needed` makes the topic that a writer needs, `migration` copies a topic into another one.
"""

from k2stream.topics.kinds import COMPACTED, DAY_MS, KEPT_7_DAYS, KEPT_30_DAYS, KINDS, LETTER_TOPICS, LETTER_TYPE, TopicKind
from k2stream.topics.name import ASSET_CLASSES, LETTERS, MARKET, TopicName, letter_topic
from k2stream.topics.redundant import redundant_topics, require_co_partitioned, venue_topic
from k2stream.topics.subscription import SELECTORS, resolve

__all__ = [
    "ASSET_CLASSES",
    "COMPACTED",
    "DAY_MS",
    "KEPT_7_DAYS",
    "KEPT_30_DAYS",
    "KINDS",
    "LETTERS",
    "LETTER_TOPICS",
    "LETTER_TYPE",
    "MARKET",
    "SELECTORS",
    "TopicKind",
    "TopicName",
    "letter_topic",
    "redundant_topics",
    "require_co_partitioned",
    "resolve",
    "venue_topic",
]
