"""What a chaos run publishes, at a steady rate, whatever is being broken meanwhile."""

import asyncio
import threading
import time
from collections.abc import Sequence

from k2stream.chaos.trades import TradeMaker
from k2stream.clock import SystemClock
from k2stream.errors import TransportError
from k2stream.feed.publisher import partition_of
from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink, Outgoing

TICK_SECONDS = 0.2
RETRY_SECONDS = 0.5


class Load:
    """A thread that publishes `rate` records a second until told to stop.

    A log batch whose fate is unknown is sent again: what came twice is a duplicate, which is no secret, for the reference is read
    from the log. What came is in order per partition.
    """

    def __init__(self, settings: Settings, topic: str, maker: TradeMaker, *, rate: int, partitions: int) -> None:
        self._settings, self._topic, self._maker, self._rate, self._partitions = settings, topic, maker, rate, partitions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()), name="chaos-load", daemon=True)
        self.published = 0
        """Records that the log confirmed."""
        self.sent_again = 0
        """Log batches whose fate was unknown."""
        self.failed: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once everything made is in the log."""
        self._stopping.set()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    async def _publish(self) -> None:
        sink = open_sink(self._settings)
        try:
            began, made = time.monotonic(), 0
            while not self._stopping.is_set():
                due = int((time.monotonic() - began) * self._rate) - made
                if due > 0:
                    await self._send_all(sink, self._maker.take(min(due, self._rate), SystemClock().now_us() // 1000))
                    made += due  # what a pause of the log held up is left out, not made up for
                await asyncio.sleep(TICK_SECONDS)
        except Exception as exc:  # said by `stop`, in the thread that can act on it
            self.failed = exc
        finally:
            await sink.close()

    async def _send_all(self, sink: LogSink, records: Sequence[Outgoing]) -> None:
        """Markers stay in the order of their partition; they are few, so log batches are not cut for them."""
        by_partition: dict[int, list[Outgoing]] = {}
        for record in records:
            by_partition.setdefault(partition_of(record.key or b"", self._partitions), []).append(record)
        for partition, batch in by_partition.items():
            await self._send(sink, partition, batch)

    async def _send(self, sink: LogSink, partition: int, batch: Sequence[Outgoing]) -> None:
        while True:
            try:
                await sink.send(self._topic, partition, batch)
            except TransportError:
                self.sent_again += 1
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.published += len(batch)
                return
