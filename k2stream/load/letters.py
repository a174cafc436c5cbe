"""Rows of a file that become no record, as dead letters: keyed by file and line, so that writing one twice is harmless."""

from collections import defaultdict
from collections.abc import Sequence

from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.letters import send_letters
from k2stream.deadletter.topics import make_letter_topic
from k2stream.feed.publisher import partition_of
from k2stream.settings import Settings
from k2stream.topics import TopicName
from k2stream.transport.sink import LogSink


async def write_letters(sink: LogSink, settings: Settings, topic: TopicName, letters: Sequence[Letter]) -> None:
    """Returns once the log holds every letter; raises TransportError. `settings` say how a letter topic is made that does not exist yet."""
    if not letters:
        return
    count = await make_letter_topic(sink, settings, topic.letters)
    placed: defaultdict[int, list[Letter]] = defaultdict(list)
    for letter in letters:
        placed[partition_of(letter.origin.encode(), count)].append(letter)
    for partition, mine in placed.items():
        await send_letters(sink, topic.letters, partition, mine)
