"""A steady stream of trades into the topic, and when each offset was published."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from k2stream.clock import SystemClock
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.transport.sink import Outgoing
from tests.bench.market import ENCODE_ROWS, PARTITIONS, TOPIC, made_trades, place

TICK_SECONDS = 0.02
"""As a producer that lingers so long: a log batch holds what came meanwhile."""


@dataclass(slots=True)
class Published:
    """Record times by offset, milliseconds since the epoch; every partition begins at offset 0."""

    times_ms: dict[int, list[int]] = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    latest_ms: int = 0
    """By how much the stream was ever behind its schedule."""

    @property
    def rows(self) -> int:
        return sum(len(times) for times in self.times_ms.values())

    def times_of(self, partition: int) -> NDArray[np.int64]:
        return np.array(self.times_ms[partition], dtype=np.int64)


class SteadyStream:
    """Publishes `rate` trades a second for `seconds`, from a thread of its own; values are encoded before."""

    def __init__(self, address: str, schema_id: int, *, rate: int, seconds: float) -> None:
        self._address, self._rate, self._seconds = address, rate, seconds
        self._values = list(_values(int(rate * seconds), schema_id))
        self.published = Published()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="steady", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_done(self) -> bool:
        return not self._thread.is_alive()

    async def _run(self) -> None:
        sink = KafkaSink(self._address)
        try:
            began, done = time.monotonic(), 0
            while done < len(self._values):
                await asyncio.sleep(TICK_SECONDS)
                due = min(int((time.monotonic() - began) * self._rate), len(self._values))
                self.published.latest_ms = max(self.published.latest_ms, (due - done) * 1000 // self._rate)
                await self._publish(sink, self._values[done:due])
                done = due
        finally:
            await sink.close()

    async def _publish(self, sink: KafkaSink, values: list[tuple[int, Outgoing]]) -> None:
        now_ms = SystemClock().now_us() // 1000
        by_partition: dict[int, list[Outgoing]] = {}
        for partition, record in values:
            by_partition.setdefault(partition, []).append(Outgoing(record.key, record.value, now_ms))
        await asyncio.gather(*(sink.send(TOPIC, partition, records) for partition, records in by_partition.items()))
        for partition, records in by_partition.items():
            self.published.times_ms[partition] += [now_ms] * len(records)


def _values(rows: int, schema_id: int) -> Iterator[tuple[int, Outgoing]]:
    """Partition and record of each trade; in the order of their times within a partition, and nearly so between them."""
    for start in range(0, rows, ENCODE_ROWS):
        waiting: dict[int, list[Outgoing]] = {p: [] for p in range(PARTITIONS)}
        place(made_trades(start, min(ENCODE_ROWS, rows - start)), schema_id, waiting)
        found = [(partition, record) for partition, records in waiting.items() for record in records]
        yield from sorted(found, key=lambda one: one[1].timestamp_ms)
