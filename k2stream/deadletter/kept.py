"""The letters that are still kept, in their topics and in their table, for audits."""

from collections.abc import Iterator
from contextlib import closing

from k2stream.deadletter.envelope import is_line, parse_origin
from k2stream.lake.catalog import open_catalog
from k2stream.lake.letter_files import LetterFiles
from k2stream.query.engine import Engine
from k2stream.query.letters import origins_in_log
from k2stream.settings import Settings
from k2stream.topics import LETTER_TOPICS
from k2stream.transport.ends import begins_of
from k2stream.transport.reader import read_topics

Origin = tuple[str, int, int]
"""Topic, partition and offset of the record that a letter is about."""


def origins_of_letters(settings: Settings) -> Iterator[Origin]:
    """Each letter's key; one written twice comes twice, lines of files are left out. Raises TransportError, LakeError.

    The topics are asked; their table only once retention has taken letters of theirs, so that a letter that never
    reached its topic is still found out.
    """
    for record in read_topics(settings, LETTER_TOPICS):
        if record.key is not None and not is_line(key := record.key.decode()):
            yield parse_origin(key)
    if _dropped(settings):
        yield from origins_of_table(settings)


def origins_of_table(settings: Settings) -> set[Origin]:
    """The same of their table and of what its outbox has not taken yet; raises LakeError."""
    with closing(open_catalog(settings)) as catalog, Engine.of(settings) as engine:
        return origins_in_log(engine, LetterFiles(catalog, settings).files())


def letters_dropped(settings: Settings) -> int:
    """How many letters may be nowhere any more: those that retention has taken from the topics before there was a table to keep them.

    Once the table is there it keeps every letter, so what it and the topics lack is lost. Raises TransportError, LakeError.
    """
    dropped = _dropped(settings)
    if not dropped:
        return 0
    with closing(open_catalog(settings)) as catalog:
        before = LetterFiles(catalog, settings).before()
    return dropped if before is None else min(dropped, before)


def _dropped(settings: Settings) -> int:
    """How many letters retention has taken from the topics: the first offsets still kept, added up."""
    return sum(begin for tp, begin in begins_of(settings).items() if tp.topic in LETTER_TOPICS)
