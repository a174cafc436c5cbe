"""A venue's trades and quotes into their topics: frames to rows, rows to records, records to a spool, and from there into the log.

Nothing that was received is dropped: what the log does not take waits in memory, then on disk, then the sockets are not read. At least once:
records that were handed over when an error came are handed over again, and dedup drops them by their ids.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
import structlog

from k2stream.clock import Clock
from k2stream.errors import DecodeError, FeedLost, TransportError
from k2stream.feed.avro import encode
from k2stream.feed.frame import Row
from k2stream.feed.publisher import RECONNECT, FeedMarker, publishing
from k2stream.feed.recording import MessageIds
from k2stream.feed.spool import Spool
from k2stream.feed.venue import Venue
from k2stream.rows import FEED_KEY, body_schema
from k2stream.symbols import Pair
from k2stream.transport.sink import LogSink, Outgoing

log = structlog.get_logger(__name__)

LINGER_SECONDS = 0.01
"""Rows are encoded together: one by one costs a millisecond each."""
ROWS_AHEAD = 2_000
"""Rows that wait to be encoded; beyond, the socket is not read."""
ROWS_AT_ONCE = 256
"""Rows that are encoded before room is asked for again: by so many a spool exceeds its bounds at most."""
RECORDS_AT_ONCE = 5_000
UNREADABLE_BYTES = 512 << 10
"""Of a frame that cannot be read so much is kept: Kafka takes a record of 1 MiB by default, and one that it refuses would be sent for ever."""
CUT = "k2-cut"
"""Header of a frame that was cut: its whole length in bytes."""
CLOCK_US = 5_000_000
"""A trade that is so much later than now says that this machine's clock is wrong."""
LONGEST_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lane:
    """One data type of a venue on its way into one topic."""

    topic: str
    schema: str
    """The contract's name."""
    schema_id: int
    spool: Spool
    rows: list[Row] = field(default_factory=list)

    def encode(self, count: int) -> None:
        """The first rows into the spool, and only then out of `rows`, at once: nobody can be cancelled while they are nowhere. Raises FeedError."""
        rows = self.rows[:count]
        self.spool.add(records_of(rows, self.schema, self.schema_id))
        del self.rows[: len(rows)]


@dataclass(slots=True)
class Counts:
    """What a feed saw since it started."""

    frames: int = 0
    trades: int = 0
    quotes: int = 0
    unreadable: int = 0
    """Frames that are not as the venue's used to be; they go to the topic as they are, and become dead letters."""
    durable: int = 0
    """Records that the log has taken, markers among them."""


class LiveFeed:
    """Takes frames of one venue; `run` moves them on until it is cancelled."""

    def __init__(
        self,
        venue: Venue,
        symbols: Sequence[str],
        lanes: Mapping[str, Lane],
        *,
        ids: MessageIds,
        clock: Clock,
        name: str = "",
        pairs: Mapping[str, Pair] | None = None,
    ) -> None:
        """`lanes` by data type: trades, and quotes where they are wanted.

        Into each row's vendor_data go `name`, whose report it was, and of `pairs`, by symbol, what is traded.
        """
        self.counts = Counts()
        self._venue, self._symbols, self._lanes, self._ids, self._clock = venue, symbols, lanes, ids, clock
        self._said = {FEED_KEY: name} if name else {}
        self._pairs = pairs or {}
        self._newest_us: dict[str, int] = {}
        self._unmarked: set[str] = set()
        """Symbols whose first marker waits for a time of the venue's."""
        self._clock_warned = False
        self._encoded = asyncio.Condition()
        self._encoding = asyncio.Lock()

    async def take(self, frame: bytes, now_us: int) -> None:
        """One frame, read at `now_us`; waits while too much waits. Raises FeedLost if the venue refuses what was asked for."""
        self.counts.frames += 1
        try:
            found = self._venue.read(frame, new_id=self._ids.one, now_us=now_us)
        except DecodeError as exc:
            await self._unreadable(frame, now_us, exc)
            return
        if found.refused:
            raise FeedLost(f"{self._venue.name} refuses {', '.join(self._symbols)}: {found.refused}. Are the symbols as the venue writes them?")
        self.counts.trades += len(found.trades)
        self.counts.quotes += len(found.quotes)
        for data_type, rows in (("trades", found.trades), ("quotes", found.quotes)):
            if rows and data_type in self._lanes:
                self._note_times(rows, now_us)
                self._mark_first({row["symbol"] for row in rows} & self._unmarked, now_us)
                self._describe(rows)
                self._lanes[data_type].rows.extend(rows)
        if any(len(lane.rows) >= ROWS_AHEAD for lane in self._lanes.values()):
            async with self._encoded:
                await self._encoded.wait()

    async def mark_gap(self) -> None:
        """Nothing was read for a while: a marker for every symbol, behind what came before.

        Its time is the venue's, just after the newest trade; a symbol without any gets its marker with its first one. Never this machine's:
        by a clock that is behind it would be older than the gap, by one that is ahead it would make later markers old news.
        """
        await self._encode_all()
        self._unmarked |= set(self._symbols) - self._newest_us.keys()
        markers = [FeedMarker(symbol, RECONNECT, "", self._newest_us[symbol] + 1) for symbol in self._symbols if symbol in self._newest_us]
        for lane in self._lanes.values():
            await lane.spool.put([marker.record(self._clock.now_us() // 1000) for marker in markers])

    def _mark_first(self, symbols: set[str], now_us: int) -> None:
        self._unmarked -= symbols
        for lane in self._lanes.values():
            lane.spool.add([FeedMarker(symbol, RECONNECT, "", self._newest_us[symbol]).record(now_us // 1000) for symbol in sorted(symbols)])

    async def run(self, sink: LogSink) -> None:
        """Until cancelled; raises FeedError if the disk cannot take what the log does not."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._encode_for_good())
            for lane in self._lanes.values():
                tasks.create_task(self._drain(lane, sink))

    async def settle(self) -> None:
        """Returns when everything taken so far is durable, whatever comes meanwhile. `run` must be under way."""
        await self._encode_all()
        ends = {lane.topic: lane.spool.end_records for lane in self._lanes.values()}
        while any(lane.spool.dropped_records < ends[lane.topic] for lane in self._lanes.values()):  # noqa: ASYNC110 # a poll is enough at an end
            await asyncio.sleep(LINGER_SECONDS)

    def leave(self) -> None:
        """At the end, when nobody calls `take` any more: what was taken is in the spools, beyond their bounds if it must be. Raises FeedError."""
        with ExitStack() as lanes:  # a disk that is full for one of them may not be for the other
            for lane in self._lanes.values():
                if lane.rows:
                    lanes.callback(lane.encode, len(lane.rows))

    def _describe(self, rows: Sequence[Row]) -> None:
        for row in rows:
            row["vendor_data"].update(self._said)
            if (pair := self._pairs.get(row["symbol"])) is not None:  # what a file says is surer than what a symbol looks like
                row["currency"] = pair.quote
                row["vendor_data"].update(base_asset=pair.base, quote_asset=pair.quote, pair=str(pair))

    def _note_times(self, rows: Sequence[Row], now_us: int) -> None:
        for row in rows:
            self._newest_us[row["symbol"]] = max(row["timestamp"], self._newest_us.get(row["symbol"], 0))
        ahead_us = max(row["timestamp"] for row in rows) - now_us
        if ahead_us > CLOCK_US and not self._clock_warned:
            self._clock_warned = True
            log.warning("feed.clock_behind", venue=self._venue.name, seconds=round(ahead_us / 1e6, 1), risk="what is an hour ahead becomes a dead letter")

    async def _unreadable(self, frame: bytes, now_us: int, exc: DecodeError) -> None:
        """It goes to the topic as it came, cut if a topic would not take it: the worker makes a dead letter of it, with its bytes and a reason."""
        self.counts.unreadable += 1
        if self.counts.unreadable & (self.counts.unreadable - 1) == 0:  # the first, second, fourth...: a flood must not flood the log too
            log.warning("feed.unreadable", venue=self._venue.name, frames=self.counts.unreadable, cause=str(exc))
        headers = ((CUT, str(len(frame)).encode()),) if len(frame) > UNREADABLE_BYTES else ()
        await self._lanes["trades"].spool.put([Outgoing(self._venue.name.encode(), frame[:UNREADABLE_BYTES], now_us // 1000, headers)])

    async def _encode_for_good(self) -> None:
        while True:
            await asyncio.sleep(LINGER_SECONDS)
            await self._encode_all()

    async def _encode_all(self) -> None:
        async with self._encoding:  # or rows that wait for room would be passed by later ones
            for lane in self._lanes.values():
                for start in range(0, rows := len(lane.rows), ROWS_AT_ONCE):  # what comes meanwhile is not waited for: it may never end
                    await lane.spool.room()
                    lane.encode(min(ROWS_AT_ONCE, rows - start))
        async with self._encoded:
            self._encoded.notify_all()

    async def _drain(self, lane: Lane, sink: LogSink) -> None:
        """Spool to log, again and again; while the log does not answer, with longer and longer pauses."""
        pause_seconds = 0.1
        while True:
            try:
                async with publishing(sink, lane.topic, schema=lane.schema, schema_id=lane.schema_id, clock=self._clock) as publisher:
                    while True:
                        records = await lane.spool.peek(RECORDS_AT_ONCE)
                        for has_headers, run in groupby(records, key=lambda record: bool(record.headers)):
                            if not has_headers:
                                await publisher.records(run)
                                continue
                            for marker in run:
                                await publisher.alone(marker)
                        await publisher.flush()
                        lane.spool.drop(len(records))
                        self.counts.durable += len(records)
                        pause_seconds = 0.1
            except TransportError as exc:
                log.warning("feed.log_absent", topic=lane.topic, cause=str(exc), waiting_bytes=len(lane.spool), again_in_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_RETRY_SECONDS)


def records_of(rows: list[Row], schema: str, schema_id: int) -> list[Outgoing]:
    """Rows as records, in order, keyed by symbol; their time is when they were read, so that a spool's delay shows as latency."""
    table = pa.Table.from_pylist(rows, schema=body_schema(schema))
    values = encode(table, schema=schema, schema_id=schema_id).to_pylist()
    return [Outgoing(row["symbol"].encode(), value, row["ingestion_timestamp"] // 1000) for row, value in zip(rows, values, strict=True)]
