"""Best bids and asks of all exchanges.

Topic in:   market.{asset_class}.quotes.{exchange}, whole log batches
Effect:     one row a quote in market_data.quotes, gap events in market_data.gaps, one dead letter a bad record
Guarantee:  exactly once, as for trades (agents/trades.py); a log without a topic of quotes opens no table and costs nothing
"""

from faust.types import StreamT

from agents import app
from k2stream.app import K2App
from k2stream.wiring import open_capture
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.quality import QUALITY
from tables.lake.quotes import QUOTES

quote_batches = app.batch_topic("quotes", app.settings.topics)


@app.on_topic("quotes")
def open_quotes(app: K2App) -> None:
    app.captures["quotes"] = open_capture(app, "quotes", QUOTES, GAPS, DEAD_LETTERS, QUALITY)


@app.agent(quote_batches, name="quotes")
async def capture_quotes(stream: StreamT[bytes]) -> None:
    """Hand each batch to the capture, which acks it once it is committed."""
    async for event in stream.noack().events():  # type: ignore[attr-defined] # Stream has it, its interface does not
        await app.captures["quotes"].take(event.value)
