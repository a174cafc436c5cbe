"""Where a partition is read from for the first time, and whether the log still holds what the vector asks for; pure."""

from collections.abc import Mapping

from k2stream.errors import TransportError, VectorMissing
from k2stream.lake.offsets import Vector
from k2stream.records import TopicPartition

Bounds = Mapping[TopicPartition, tuple[int, int]]
"""Per topic partition the log's first offset and the one after its last."""


def starts_of(vector: Vector, tps: set[TopicPartition], bounds: Bounds, start: str) -> dict[TopicPartition, int]:
    """First offsets of the partitions that the vector does not name.

    `latest` applies to a topic's first start on this table only; a partition that appears later begins at the log's beginning.
    """
    known = {tp.topic for tp in vector}
    return {
        tp: bounds[tp][1] if start == "latest" and tp.topic not in known else bounds[tp][0]
        for tp in sorted(tps)
        if tp not in vector
    }


def check_bounds(vector: Vector, tps: set[TopicPartition], bounds: Bounds) -> None:
    """Raises if the log cannot serve the vector: nothing is skipped in silence."""
    for tp in sorted(tps):
        begin, end = bounds[tp]
        wanted = vector[tp].next
        if wanted > end:
            raise VectorMissing(
                f"{tp.topic}/{tp.partition}: the table continues at offset {wanted}, the log ends at {end}. The topic was re-created or "
                "truncated, or this is another log. Point K2_BROKER at the right one; for a topic that was made anew choose another name, or tables "
                "of their own (K2_NAMESPACE): its offsets would stand twice."
            )
        if wanted < begin:
            raise TransportError(
                f"{tp.topic}/{tp.partition}: the table continues at offset {wanted}, the log begins at {begin}: "
                f"{begin - wanted} offsets were deleted before they were read. Restore them, or accept the loss with `k2 adopt --lost`."
            )
