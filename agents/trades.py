"""Trades of all exchanges.

Topic in:   market.{asset_class}.trades.{exchange}, whole log batches
Effect:     one row a trade in market_data.trades, gap events in market_data.gaps, one dead letter a bad record in its topic
            and in market_data.dead_letters, what is odd about good ones in market_data.quality
Guarantee:  exactly once, whatever crashes, rebalances or wakes up late: the table's own offset vector decides what is
            read, and a commit that does not continue it is refused
"""

from faust.types import StreamT

from agents import app
from k2stream.app import K2App
from k2stream.wiring import open_capture
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.quality import QUALITY
from tables.lake.trades import TRADES

trade_batches = app.batch_topic("trades", app.settings.topics)


@app.on_boot("trades")
def open_trades(app: K2App) -> None:
    app.captures["trades"] = open_capture(app, "trades", TRADES, GAPS, DEAD_LETTERS, QUALITY)


@app.agent(trade_batches, name="trades")
async def capture_trades(stream: StreamT[bytes]) -> None:
    """Hand each batch to the capture, which acks it once it is committed."""
    async for event in stream.noack().events():  # type: ignore[attr-defined] # Stream has it, its interface does not
        await app.captures["trades"].take(event.value)
