"""Records of Kafka topics for somebody outside of any group: from given offsets to where each partition ends now, a fetch at a time."""

from collections.abc import Mapping
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord

from k2stream.errors import TransportError
from k2stream.records import Record, TopicPartition
from k2stream.settings import Settings
from k2stream.transport.kafka_access import access_options, why_away

FETCH_BYTES = 8 << 20
"""Of all partitions together; the client prefetches one fetch more."""
PARTITION_BYTES = 1 << 20
FETCH_RECORDS = 20_000
WAIT_MS = 500

E_GONE = "Offsets {positions} are not in the log any more, or not yet: it cannot be read on from there."
E_UNREADABLE = "Kafka at {bootstrap} could not be read: {cause}"


class KafkaReader:
    """On one event loop; everything raises TransportError when the log cannot be read."""

    def __init__(self, consumer: AIOKafkaConsumer, options: Mapping[str, object]) -> None:
        self._consumer, self._options = consumer, options
        self.ends: dict[KafkaTopicPartition, int] = {}
        """Partitions that are not read to their end yet, and these ends."""

    @classmethod
    async def open(cls, settings: Settings, positions: Mapping[TopicPartition, int | None]) -> Self:
        """Connected and sought to `positions`, where None is the log's beginning."""
        options = access_options(settings)
        consumer = AIOKafkaConsumer(
            **options,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=settings.isolation_level,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_BYTES,
        )
        reader = cls(consumer, options)
        try:
            await consumer.start()
            await reader._seek({KafkaTopicPartition(*tp): position for tp, position in positions.items()})
        except KafkaError as exc:
            await consumer.stop()
            raise await reader._error(exc) from exc
        except BaseException:
            await consumer.stop()
            raise
        return reader

    async def fetch(self) -> list[Record]:
        """What came next, in the order of each partition; empty if that took longer than WAIT_MS, or only holes came."""
        try:
            fetched = await self._consumer.getmany(*self.ends, timeout_ms=WAIT_MS, max_records=FETCH_RECORDS)
            found = [_record(m) for tp, messages in fetched.items() for m in messages if m.offset < self.ends[tp]]
            self.ends = {tp: end for tp, end in self.ends.items() if await self._consumer.position(tp) < end}
        except KafkaError as exc:
            raise await self._error(exc) from exc
        return found

    async def close(self) -> None:
        """Let go of the connections."""
        await self._consumer.stop()

    async def _seek(self, positions: Mapping[KafkaTopicPartition, int | None]) -> None:
        """`seek_to_beginning` would race with the client's own look for a position, and lose: offsets are given."""
        self._consumer.assign(list(positions))
        begins, ends = await self._consumer.beginning_offsets(list(positions)), await self._consumer.end_offsets(list(positions))
        for tp, position in positions.items():
            start = begins[tp] if position is None else position
            self._consumer.seek(tp, start)
            if start < ends[tp]:
                self.ends[tp] = ends[tp]

    async def _error(self, exc: KafkaError) -> TransportError:
        if isinstance(exc, OffsetOutOfRangeError):
            gone = ", ".join(f"{tp.topic}/{tp.partition}/{offset}" for tp, offset in exc.args[0].items())
            return TransportError(E_GONE.format(positions=gone))
        bootstrap = ",".join(self._options["bootstrap_servers"])  # type: ignore[arg-type] # a list of strings
        return TransportError(E_UNREADABLE.format(bootstrap=bootstrap, cause=await why_away(self._options) or str(exc) or type(exc).__name__))


def _record(m: ConsumerRecord) -> Record:
    headers = tuple((name, bytes(value or b"")) for name, value in m.headers)
    return Record(m.topic, m.partition, m.offset, m.timestamp, m.key, m.value, headers)
