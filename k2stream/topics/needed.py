"""The topic that a writer needs: made as it is declared where it is missing, compared with that where it exists."""

from collections.abc import Mapping, Sequence

import structlog

from k2stream.errors import TransportError
from k2stream.settings import Settings
from k2stream.topics.files import terms_of
from k2stream.topics.plan import PARTITIONS, Difference, Found, Terms, differences_of
from k2stream.topics.redundant import venue_topic
from k2stream.transport.sink import LogSink

log = structlog.get_logger(__name__)


async def make(settings: Settings, sink: LogSink, topic: str) -> Sequence[Difference]:
    """Make a market topic unless it exists; what of it is not as declared. Raises SettingsError or TransportError.

    A redundant topic gets as many partitions as one of its venue's that exists, whatever is declared: workers refuse any other number.
    """
    terms, existing = terms_of(settings, topic), await sink.topics()
    partitions = _number_of_others(topic, existing) or terms.wanted.partitions
    await sink.create_topic(topic, partitions, terms.wanted.config)  # where it exists this waits for its leaders
    if topic not in existing:
        return _differences(terms, Found(partitions, terms.wanted.config))
    return _differences(terms, await _found(sink, topic))


def tell(differences: Sequence[Difference]) -> None:
    """One warning for all that differs of a topic."""
    if differences:
        log.warning(
            "topic.differs",
            topic=differences[0].topic,
            expected={each.what: each.declared for each in differences},
            found={each.what: each.found for each in differences},
            then="it is used as it is; `k2 topics diff` shows what differs, `k2 topics apply` mends what can be",
        )


def _number_of_others(topic: str, existing: Mapping[str, int]) -> int | None:
    venue = venue_topic(topic)
    return next((existing[name] for name in sorted(existing) if name != topic and venue_topic(name) == venue), None)


async def _found(sink: LogSink, topic: str) -> Found | None:
    """None if the log does not say: one that tells nobody its settings is written to all the same."""
    try:
        state = (await sink.describe_topics()).get(topic)
    except TransportError as exc:
        log.warning("topic.unknown", topic=topic, cause=str(exc), then="whether it is as declared was not looked at")
        return None
    return None if state is None else Found(state.partitions, state.config)


def _differences(terms: Terms, found: Found | None) -> Sequence[Difference]:
    if terms.declared is None or found is None:
        return ()
    is_by_hand = found.partitions == terms.wanted.partitions
    return [each for each in differences_of(terms.declared, found) if not (each.what == PARTITIONS and is_by_hand)]
