"""Rows of a file that become no record, as dead letters: keyed by file and line, so that writing one twice is harmless."""

from collections import defaultdict
from collections.abc import Sequence

from k2stream.deadletter.envelope import Letter, encode_letter
from k2stream.feed.publisher import partition_of
from k2stream.topics import KEPT_30_DAYS, TopicName
from k2stream.transport.sink import LogSink, Outgoing

BATCH_LETTERS = 200
"""Letters of a log batch; a row of a file is at most 1 MB, and those are rare."""
BATCH_BYTES = 512 << 10


async def write_letters(sink: LogSink, partitions: int, topic: TopicName, letters: Sequence[Letter]) -> None:
    """Returns once the log holds every letter; raises TransportError. `partitions` of a letter topic that does not exist yet."""
    if not letters:
        return
    await sink.create_topic(topic.letters, partitions, KEPT_30_DAYS)
    count = await sink.partitions(topic.letters)
    placed: defaultdict[int, list[Outgoing]] = defaultdict(list)
    for letter in letters:
        key = letter.origin.encode()
        placed[partition_of(key, count)].append(Outgoing(key, encode_letter(letter), letter.timestamp_ms))
    for partition, outgoing in placed.items():
        for few in _batches(outgoing):
            await sink.send(topic.letters, partition, few)


def _batches(outgoing: Sequence[Outgoing]) -> list[list[Outgoing]]:
    batches: list[list[Outgoing]] = [[]]
    size_bytes = 0
    for letter in outgoing:
        length = len(letter.value or b"")
        if batches[-1] and (len(batches[-1]) == BATCH_LETTERS or size_bytes + length > BATCH_BYTES):
            batches.append([])
            size_bytes = 0
        batches[-1].append(letter)
        size_bytes += length
    return batches
