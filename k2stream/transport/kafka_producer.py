"""Faust's producer, except that it starts without a broker and waits for it at the first use."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from faust.transport import base
from faust.transport.drivers import aiokafka as driver
from faust.types import RecordMetadata
from mode import Service

from k2stream.transport.base import settings_of
from k2stream.transport.kafka_access import security_options
from k2stream.transport.kafka_admin import configure
from k2stream.transport.kafka_retry import backoff

BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
POLL_SECONDS = 0.02
STOP_SECONDS = 5.0
E_STOPPED = "The producer was stopped before it could reach Kafka; nothing was sent."


class Producer(driver.Producer):
    """Starts at once; what is sent before a broker answered waits for it."""

    _producer: aiokafka.AIOKafkaProducer | None = None

    async def on_start(self) -> None:
        """Unlike Faust's this does not connect: the worker's pages must open whoever is away."""
        await base.Producer.on_start(self)

    @Service.task
    async def _connect(self) -> None:
        for delay_seconds in backoff():
            producer = self._new_producer()
            try:
                await producer.start()
            except KafkaError as exc:
                await producer.stop()
                self.log.debug("Kafka is not there yet, the producer asks again in %.1f s: %s", delay_seconds, exc)
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                self._producer = producer
                return
            await self.sleep(delay_seconds)
            if self.should_stop:
                return

    async def _connected(self) -> None:
        """Wait for the broker; ProducerSendError once the producer is told to stop."""
        while self._producer is None:
            if self.should_stop:
                raise ProducerSendError(E_STOPPED)
            await asyncio.sleep(POLL_SECONDS)

    async def on_stop(self) -> None:
        try:
            await asyncio.wait_for(super().on_stop(), STOP_SECONDS)
        except (TimeoutError, KafkaError) as exc:
            self.log.warning("Left Kafka with records that it may not have: %r", exc)

    async def send(self, *args: Any, **kwargs: Any) -> Awaitable[RecordMetadata]:
        """Hand one record in; the future holds its place once the broker has it."""
        await self._connected()
        sent: Awaitable[RecordMetadata] = await super().send(*args, **kwargs)
        return sent

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Create it unless it exists; changelogs take their time from the broker.

        It refuses records of a clock that is an hour ahead, and Faust ends a worker whose changelog is refused.
        """
        await self._connected()
        if topic in self.app.tables.changelog_topics:
            kwargs["config"] = {**(kwargs.get("config") or {}), **BROKER_TIME}
            await self._keep_broker_time(topic)
        await super().create_topic(topic, *args, **kwargs)

    async def _keep_broker_time(self, topic: str) -> None:
        """Mend a changelog that an earlier version made."""
        client = self._ensure_producer().client
        try:
            if topic in (await client.fetch_all_metadata()).topics():
                await configure(client, topic, BROKER_TIME)
        except KafkaError as exc:
            self.log.warning("%s keeps the time of its writers, which the broker refuses if it is an hour ahead: %r", topic, exc)

    def _settings_auth(self) -> Mapping[str, Any]:
        return security_options(settings_of(self.app))

    def supports_headers(self) -> bool:
        return True
