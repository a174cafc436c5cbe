"""Kafka's side of Faust's consumer: our own aiokafka client, on the loop of a thread of its own.

What differs from Faust's: it waits for a broker that is away instead of ending the worker, whole log batches come out of
its fetcher, nothing but an explicit seek decides where it reads, and no failed commit or fetch ends anything.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnsupportedForMessageFormatError,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from faust.transport.consumer import ConsumerThread, ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from k2stream.clock import Deadline
from k2stream.errors import TransportError
from k2stream.transport.fetch import deliver_log_batches
from k2stream.transport.kafka_options import consumer_options
from k2stream.transport.kafka_retry import backoff

COMMIT_SECONDS = 5.0
"""An offset commit that takes longer is given up; the next one holds what it held."""
STOP_SECONDS = 5.0
"""Leaving the group politely; a broker that is away must not keep the worker from ending."""
STOP_POLL_SECONDS = 0.05
TROUBLE_SECONDS = 0.5
TELL_SECONDS = 5.0
REASSIGNMENT_SECONDS = 0.05
CORRUPT_READS = 3
"""A fetch may be damaged under way: so many wrong checksums in a row, and it is the log that is damaged."""
TOPIC_RESOURCE = 2
CLEANUP_POLICY = "cleanup.policy"

E_NOT_KNOWN = "Kafka does not say whether {topic} is compacted ({cause}); its missing offsets will count as lost."


class KafkaThread(driver.AIOKafkaConsumerThread):
    """Reads for one Faust consumer."""

    consumer: Any
    """The driver's Consumer."""
    _consumer: aiokafka.AIOKafkaConsumer | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._compacted: dict[str, bool] = {}
        self._corrupt_reads = 0
        self._quiet = Deadline.after(0)

    # start and stop

    async def on_start(self) -> None:
        """Returns when a broker answered, or when the worker is told to stop."""
        self.time_started = asyncio.get_running_loop().time()
        for delay_seconds in backoff():
            consumer = self._create_consumer(loop=self.thread_loop)
            try:
                await consumer.start()
            except KafkaError as exc:
                await consumer.stop()
                self.log.warning("Kafka is not there yet, asking again in %.1f s: %s", delay_seconds, exc)
            else:
                deliver_log_batches(consumer, is_batch_topic=self.consumer.is_batch_topic)
                self._consumer = consumer
                return
            if await self._is_told_to_stop(delay_seconds):
                return

    async def _is_told_to_stop(self, seconds: float) -> bool:
        pause = Deadline.after(seconds)
        while not (pause.is_over() or self._is_ending()):  # noqa: ASYNC110 # flags of other loops
            await asyncio.sleep(STOP_POLL_SECONDS)
        return self._is_ending()

    def _is_ending(self) -> bool:
        return bool(self.should_stop or self.consumer.should_stop or self.app.should_stop)

    async def on_thread_stop(self) -> None:
        """Leave the group, or just go where nobody answers."""
        await ConsumerThread.on_thread_stop(self)  # the driver's own waits for the broker without bound
        if self._consumer is not None:
            try:
                await asyncio.wait_for(self._consumer.stop(), STOP_SECONDS)
            except (TimeoutError, KafkaError) as exc:
                self.log.warning("Left Kafka without saying good-bye: %r", exc)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        self._assignor = self.app.assignor  # ours, by Transport: Faust's recovery asks it which changelogs are ours
        return aiokafka.AIOKafkaConsumer(**consumer_options(self.app.conf, self.consumer.settings, transport.url, self._assignor))

    # fetching

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109 # Faust's signature
        max_records: int | None = None,
    ) -> Mapping[TP, Any]:
        """What came in; nothing while partitions are on their way elsewhere, or while a partition is in trouble."""
        if consumer._subscription.reassignment_in_progress:  # noqa: SLF001 # waiting here would hold up the commits of the revoke
            await asyncio.sleep(REASSIGNMENT_SECONDS)
            return {}
        try:
            found: Mapping[TP, Any] = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        except NoOffsetForPartitionError:  # aiokafka asked before we sought
            return {}
        except OffsetOutOfRangeError as exc:
            await self._on_out_of_range(consumer, exc.args[0])
        except (CorruptRecordException, UnsupportedForMessageFormatError) as exc:
            await self._on_corrupt(exc)
        except ConsumerStoppedError:
            raise
        except KafkaError as exc:
            self._tell("Nothing can be read for now: %r", exc)
            await asyncio.sleep(TROUBLE_SECONDS)
        else:
            self._corrupt_reads = 0 if found else self._corrupt_reads
            return found
        return {}

    async def _on_out_of_range(self, consumer: aiokafka.AIOKafkaConsumer, positions: Mapping[Any, int]) -> None:
        """Tell where the log begins and ends, unless the partition was sought elsewhere meanwhile."""
        try:
            begins, ends = await consumer.beginning_offsets(list(positions)), await consumer.end_offsets(list(positions))
        except KafkaError as exc:  # the fetch will fail again, and we ask again
            self._tell("The log's bounds are not known for now: %r", exc)
            await asyncio.sleep(TROUBLE_SECONDS)
            return
        for tp, position in positions.items():
            if not begins[tp] <= position <= ends[tp]:
                self.consumer.report_out_of_range(ensure_TP(tp), begins[tp], ends[tp])

    async def _on_corrupt(self, exc: KafkaError) -> None:
        self._corrupt_reads += 1
        if isinstance(exc, UnsupportedForMessageFormatError) or self._corrupt_reads >= CORRUPT_READS:
            self.consumer.stop_app(exc)
        else:
            self.log.error("Fetched bytes are damaged, reading them again: %s", exc)
        await asyncio.sleep(TROUBLE_SECONDS)

    def _tell(self, text: str, exc: Exception) -> None:
        """What goes on for as long as the broker is away, in one line every few seconds."""
        if self._quiet.is_over():
            self._quiet = Deadline.after(TELL_SECONDS)
            self.log.warning(text, exc)

    # positions

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        """Seek, knowing what a jump in these topics will mean. IllegalStateError if a rebalance took them away meanwhile."""
        await self._learn_policies(consumer, {tp.topic for tp in partitions if self.consumer.is_batch_topic(tp.topic)})
        try:
            await super()._seek_wait(consumer, partitions)
        except AssertionError as exc:  # aiokafka's word for it between two subscriptions: nothing is assigned at all
            raise IllegalStateError(f"Nothing is assigned, so there is nothing to seek in: {sorted(partitions)}") from exc

    async def _learn_policies(self, consumer: aiokafka.AIOKafkaConsumer, topics: set[str]) -> None:
        """Asked at every seek: a policy may change, and a jump makes us seek before it counts as a loss."""
        if not topics:
            return
        client = consumer._client  # noqa: SLF001 # its public face cannot ask for configurations
        node = client.get_random_node()
        if node is None:
            raise TransportError("Kafka is not connected: topic policies cannot be asked for.")
        answer = await client.send(node, DescribeConfigsRequest([(TOPIC_RESOURCE, topic, [CLEANUP_POLICY]) for topic in sorted(topics)]))
        for code, text, _, topic, entries in answer.resources:
            if code:
                self.log.warning(E_NOT_KNOWN.format(topic=topic, cause=text or for_code(code).__name__))
            self._compacted[topic] = any(name == CLEANUP_POLICY and "compact" in value.split(",") for name, value, *_ in entries)

    def is_compacted(self, topic: str) -> bool:
        """As of the last seek into the topic."""
        return self._compacted.get(topic, False)

    # offsets

    async def committed(self, tps: Iterable[TP]) -> Mapping[TP, int]:
        """The group's offsets that the log still holds; one that retention has passed counts as none."""
        offsets: Mapping[TP, int] = await self.call_thread(self._committed, list(tps))
        return offsets

    async def _committed(self, tps: list[TP]) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        keys = [driver.ensure_aiokafka_TP(tp) for tp in tps]
        offsets = dict(zip(keys, await asyncio.gather(*[consumer.committed(key) for key in keys]), strict=True))
        begins, ends = await consumer.beginning_offsets(keys), await consumer.end_offsets(keys)
        return {ensure_TP(tp): offset for tp, offset in offsets.items() if offset is not None and begins[tp] <= offset <= ends[tp]}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """False if they were not committed; the next commit holds them, and after a revoke the table knows better."""
        ours = {driver.ensure_aiokafka_TP(tp): offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not ours:
            return False
        try:
            await asyncio.wait_for(self._ensure_consumer().commit(ours), COMMIT_SECONDS)
        except (KafkaError, IllegalStateError, TimeoutError) as exc:
            self._tell("Offsets were not committed, the next commit holds them: %r", exc)
            return False
        return True

    def assignment(self) -> set[TP]:
        """Nothing as long as no broker answered: Faust asks from the first second on."""
        return set() if self._consumer is None else set(super().assignment())

    def highwater(self, tp: TP) -> int:
        """End of the log as of the last fetch, 0 before it; the last stable offset where transactions are read committed."""
        consumer, key = self._ensure_consumer(), driver.ensure_aiokafka_TP(tp)
        if key not in consumer.assignment():  # a rebalance came between
            return 0
        is_committed_only = self.consumer.settings.isolation_level == "read_committed"
        return (consumer.last_stable_offset(key) if is_committed_only else consumer.highwater(key)) or 0
