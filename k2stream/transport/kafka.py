"""`k2kafka://host:9092`: a worker on Kafka, whole log batches through Faust's own aiokafka driver.

Several brokers are separated by `;`. Group membership, rebalances and per-event topics are the driver's; what is read and
from where is `BatchNativeConsumer`'s.
"""

from collections.abc import Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from k2stream.transport.assignor import Assignor
from k2stream.transport.base import BatchNativeConsumer, BatchNativeTransport
from k2stream.transport.ending import EndsOnce
from k2stream.transport.kafka_access import KAFKA_PORT
from k2stream.transport.kafka_producer import Producer
from k2stream.transport.kafka_sink import KafkaSink
from k2stream.transport.kafka_thread import KafkaThread

__all__ = ["Consumer", "KafkaSink", "Producer", "Transport"]


class Consumer(EndsOnce, BatchNativeConsumer, driver.Consumer):
    """Faust's consumer on Kafka."""

    _thread: KafkaThread

    def _new_consumer_thread(self) -> KafkaThread:
        return KafkaThread(self, loop=self.loop, beacon=self.beacon)

    def is_compacted(self, topic: str) -> bool:
        return self._thread.is_compacted(topic)

    async def committed(self, tps: set[TP]) -> Mapping[TP, int | None]:
        return await self._thread.committed(tps)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's warnings about slow streams know nothing of windows that stay open; our health does."""
        if not self.is_batch_topic(tp.topic):
            super().verify_event_path(now, tp)


class Transport(BatchNativeTransport, driver.Transport):
    """Faust's transport for `k2kafka://`."""

    Consumer = Consumer
    Producer = Producer
    default_port = KAFKA_PORT
    driver_version = f"k2stream-{driver.Transport.driver_version}"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app.conf.PartitionAssignor = Assignor  # type: ignore[assignment] # a descriptor that Faust annotates as a form
