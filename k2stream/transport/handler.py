"""What the owner of batch topics answers, and what it may ask of the consumer."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from k2stream.clock import Deadline
from k2stream.records import Batch, TopicPartition


class BatchHandler(Protocol):
    """The owner of batch topics (`app.batch_handler`); called on Faust's main loop."""

    def batch_topics(self) -> frozenset[str]:
        """Names that are delivered as batches, as of now."""

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Offset to read from, for each of `tps` that is known: the table's `next`. Asked again, with backoff, for those left out, or if it raises."""

    def assigned(self, tps: set[TopicPartition]) -> None:
        """All batch partitions of this worker from now on; what is kept for others can go. Called after each rebalance, before `positions`."""

    async def revoke(self, tps: set[TopicPartition], deadline: Deadline) -> None:
        """Settle or drop the windows of `tps`; past the deadline the task is cancelled and left behind."""

    def topic_lost(self, tp: TopicPartition, first: int, last: int) -> None:
        """Offsets `first..last` are gone and the log does not say why; the partition stands still until `restart`."""


class BatchConsumer(Protocol):
    """What handlers and agents may ask of `app.consumer`."""

    def ack_batch(self, batch: Batch) -> None:
        """The batch is in the table: [first_offset, next_offset) is done. Any order, any thread; old epochs are ignored."""

    def release(self, batch: Batch) -> None:
        """The batch's bytes are decoded and no longer count against the budget. Any thread; twice is harmless."""

    async def restart(self, tps: Iterable[TopicPartition]) -> None:
        """Forget all that is under way of `tps` and read again from the handler's positions."""

    def epoch(self, tp: TopicPartition) -> int:
        """Counts the seeks of a partition; a batch of another epoch is stale."""

    def pause_batch(self, tps: Iterable[TopicPartition]) -> None:
        """Fetch nothing of `tps` until `resume_batch`; what is already queued stays."""

    def resume_batch(self, tps: Iterable[TopicPartition]) -> None:
        """Undo `pause_batch`; a partition that lost offsets stays stopped until `restart`."""

    async def bounds(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """Of each, log begin and log end (the last stable offset where transactions are read committed); one question for all."""

    def set_floors(self, floors: Mapping[TopicPartition, int]) -> None:
        """Offsets that the embedded log's retention must not pass; Kafka cannot be told, there it does nothing."""
