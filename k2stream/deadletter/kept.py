"""The letters that the dead letter topics still keep, for audits."""

from collections.abc import Iterator

from k2stream.deadletter.envelope import is_line, parse_origin
from k2stream.settings import Settings
from k2stream.topics import LETTER_TOPICS
from k2stream.transport.ends import begins_of
from k2stream.transport.reader import read_topics

Origin = tuple[str, int, int]
"""Topic, partition and offset of the record that a letter is about."""


def origins_of_letters(settings: Settings) -> Iterator[Origin]:
    """Each letter's key; one written twice comes twice, lines of files are left out. Raises TransportError."""
    for record in read_topics(settings, LETTER_TOPICS):
        if record.key is not None and not is_line(key := record.key.decode()):
            yield parse_origin(key)


def letters_dropped(settings: Settings) -> int:
    """How many letters retention has taken: the first offsets still kept, added up."""
    return sum(begin for tp, begin in begins_of(settings).items() if tp.topic in LETTER_TOPICS)
