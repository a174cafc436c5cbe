"""Rejected records on their way into the dead letter topics."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

import structlog

from k2stream.deadletter.envelope import Letter, encode_letter, letter_of
from k2stream.deadletter.topics import make_letter_topic
from k2stream.errors import LogRefused
from k2stream.settings import Settings
from k2stream.topics import TopicName
from k2stream.transport.bounded import bounded
from k2stream.transport.sink import LogSink, Outgoing
from k2stream.verdict import Reject

log = structlog.get_logger(__name__)

Written = tuple[Letter, Outgoing]


class LetterBox:
    """Writes one letter per rejected record, keyed by its origin."""

    def __init__(self, sink: LogSink, settings: Settings) -> None:
        """`settings` say how a letter topic is made that does not exist yet."""
        self._sink, self._settings = sink, settings
        self._known: dict[str, int] = {}

    async def publish(self, rejects: Sequence[Reject]) -> None:
        """Returns once the log holds every letter; raises TransportError. Publishing again is harmless."""
        placed: defaultdict[tuple[str, int], list[Reject]] = defaultdict(list)
        for reject in rejects:
            topic = TopicName.parse(reject.topic).letters
            count = self._known.get(topic) or await self._partitions_of(topic)
            placed[topic, reject.partition % count].append(reject)
        done = await asyncio.gather(*(self._send(*place, map(letter_of, mine)) for place, mine in placed.items()), return_exceptions=True)
        for exc in done:  # all have ended, so nothing writes on behind who is told
            if exc is not None:
                raise exc

    async def _partitions_of(self, topic: str) -> int:
        self._known[topic] = await make_letter_topic(self._sink, self._settings, topic)
        return self._known[topic]

    async def _send(self, topic: str, partition: int, letters: Iterable[Letter]) -> None:
        await send_letters(self._sink, topic, partition, letters)


async def send_letters(sink: LogSink, topic: str, partition: int, letters: Iterable[Letter]) -> None:
    """Append letters, each log batch encoded just before it is sent. One that the log refuses goes without its record's bytes, which the table holds.

    Raises TransportError: LogRefused if even such a letter is refused.
    """
    for few in bounded(((letter, _outgoing(letter)) for letter in letters), _size_bytes):
        try:
            await sink.send(topic, partition, [record for _, record in few])
        except LogRefused as exc:
            log.warning("letters.refused", topic=topic, partition=partition, letters=len(few), cause=str(exc), then="sent one by one")
            await _send_singly(sink, topic, partition, few)


async def _send_singly(sink: LogSink, topic: str, partition: int, letters: Sequence[Written]) -> None:
    for letter, whole in letters:
        try:
            await sink.send(topic, partition, [whole])
        except LogRefused:
            await sink.send(topic, partition, [_outgoing(letter, is_whole=False)])


def _outgoing(letter: Letter, *, is_whole: bool = True) -> Outgoing:
    return Outgoing(key=letter.origin.encode(), value=encode_letter(letter, is_whole=is_whole), timestamp_ms=max(0, letter.timestamp_ms))


def _size_bytes(written: Written) -> int:
    return len(written[1].value or b"")
