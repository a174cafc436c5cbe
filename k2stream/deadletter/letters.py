"""Rejected records on their way into the dead letter topics."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from aiokafka.partitioner import murmur2

from k2stream.deadletter.envelope import Letter, encode_letter, letter_of
from k2stream.topics import KEPT_30_DAYS, TopicName
from k2stream.transport.sink import LogSink, Outgoing
from k2stream.verdict import Reject

BATCH_LETTERS = 500
BATCH_BYTES = 512 << 10
"""A log batch of letters holds at most so much: Kafka refuses more than 1 MB."""


class LetterBox:
    """Writes one letter per rejected record, keyed by its origin."""

    def __init__(self, sink: LogSink, partitions: int) -> None:
        """`partitions` of a letter topic that does not exist yet."""
        self._sink, self._partitions = sink, partitions
        self._known: dict[str, int] = {}

    async def publish(self, rejects: Sequence[Reject]) -> None:
        """Returns once the log holds every letter; raises TransportError. Publishing again is harmless."""
        letters: defaultdict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for reject in rejects:
            letter = letter_of(reject)
            topic = TopicName.parse(letter.topic).letters
            key = letter.origin.encode()
            partition = (murmur2(key) & 0x7FFFFFFF) % await self._partitions_of(topic)
            letters[topic, partition].append(_outgoing(letter, key))
        for (topic, partition), outgoing in letters.items():
            for few in _batches(outgoing):
                await self._sink.send(topic, partition, few)

    async def _partitions_of(self, topic: str) -> int:
        if topic not in self._known:
            await self._sink.create_topic(topic, self._partitions, KEPT_30_DAYS)
            self._known[topic] = await self._sink.partitions(topic)
        return self._known[topic]


def _outgoing(letter: Letter, key: bytes) -> Outgoing:
    return Outgoing(key=key, value=encode_letter(letter), timestamp_ms=max(0, letter.timestamp_ms))


def _batches(outgoing: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    few: list[Outgoing] = []
    size_bytes = 0
    for letter in outgoing:
        length = len(letter.value or b"")
        if few and (len(few) == BATCH_LETTERS or size_bytes + length > BATCH_BYTES):
            yield few
            few, size_bytes = [], 0
        few.append(letter)
        size_bytes += length
    if few:
        yield few
