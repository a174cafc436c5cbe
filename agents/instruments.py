"""Reference data of all exchanges.

Topic in:   market.{asset_class}.reference_data.{exchange}, compacted, whole log batches; key company_id
Effect:     one row a company in market_data.instruments, the newest; the live table `instruments`: EXCHANGE/SYMBOL -> that row;
            one dead letter a bad record. A record without a value ends a listing: the row stays and says since when
Guarantee:  exactly once, as for trades (agents/trades.py); the live table follows the lake's within seconds, whatever was missed
"""

import asyncio
import time

from faust.types import StreamT

from agents import app
from k2stream.app import K2App
from k2stream.instruments.lookup import LOOK_SECONDS, Follower, UnknownSymbols
from k2stream.topics import TopicName
from k2stream.wiring import REFERENCE_DATA, open_instruments, source_of_instruments
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.instruments import INSTRUMENTS
from tables.live.instruments import instruments_table

instrument_batches = app.batch_topic(REFERENCE_DATA, app.settings.topics)


live = instruments_table(app)


def exchanges_with_reference_data() -> set[str]:
    """Of the topics that this worker knows of."""
    return {TopicName.parse(topic).venue.upper() for topic in instrument_batches.names}


unknown = UnknownSymbols(lambda: live, exchanges_with_reference_data)
app.when_committed(unknown.committed)
app.on_report("unknown_instruments", unknown.as_json)


@app.on_topic(REFERENCE_DATA)
def open_reference_data(app: K2App) -> None:
    app.captures[REFERENCE_DATA] = open_instruments(app, INSTRUMENTS, GAPS, DEAD_LETTERS)


@app.agent(instrument_batches, name="instruments")
async def capture_instruments(stream: StreamT[bytes]) -> None:
    """Hand each batch to the capture, which acks it once it is committed."""
    async for event in stream.noack().events():  # type: ignore[attr-defined] # Stream has it, its interface does not
        await app.captures[REFERENCE_DATA].take(event.value)


@app.task  # type: ignore[untyped-decorator] # Faust says no types of it
async def follow_instruments() -> None:
    """Keep the live table as the lake's, and count rows of symbols that it lacks."""
    follower = Follower(live)
    while not app.should_stop:
        await asyncio.sleep(LOOK_SECONDS)
        unknown.tell(time.monotonic())
        if (source := source_of_instruments(app)) is not None:
            await follower.look(source)
