"""Dead letters, counted by reason.

Topic in:   dlq.{asset_class}.{data_type}
Effect:     the live table `letters`: key of the origin -> reason; `/state` of the worker shows the counts
Guarantee:  a letter written twice is counted once, for it has one key
"""

from collections import Counter

from faust.types import StreamT

from agents import app
from k2stream.deadletter.envelope import decode_letter
from k2stream.feed.publisher import partition_of
from k2stream.topics import LETTER_TOPICS
from tables.live.letters import letters_table

letters = letters_table(app)
letter_topic = app.topic(*LETTER_TOPICS, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


@app.agent(letter_topic, name="deadletters")
async def count_letters(stream: StreamT[bytes]) -> None:
    """Remember the reason of each letter under its origin."""
    async for event in stream.events():
        letters[event.key.decode()] = decode_letter(event.value).reason


def letters_by_reason() -> dict[str, int]:
    """Distinct letters of this worker's partitions, by reason; the table also holds copies for other workers, and what they took over."""
    own = {tp.partition for tp in app.assignor.assigned_actives() if tp.topic in LETTER_TOPICS}
    return dict(Counter(reason for origin, reason in letters.items() if partition_of(origin.encode(), app.settings.partitions) in own))


app.on_report("dead_letters_by_reason", letters_by_reason)
