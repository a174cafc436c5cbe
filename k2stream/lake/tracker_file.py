"""Tracker state of a window's partitions as one file beside the table: what its streams knew at which offset."""

import zlib
from collections.abc import Mapping

import msgpack

from k2stream.errors import LakeError
from k2stream.records import TopicPartition

FORMAT = 1


def pack_tracker(states: Mapping[TopicPartition, tuple[int, bytes]]) -> bytes:
    """States of partitions, each with the offset that it stands at."""
    rows = [(tp.topic, tp.partition, next_offset, blob) for tp, (next_offset, blob) in sorted(states.items())]
    return zlib.compress(msgpack.packb((FORMAT, rows)), 1)


def unpack_tracker(data: bytes) -> dict[TopicPartition, tuple[int, bytes]]:
    """What `pack_tracker` wrote; raises LakeError if it is damaged or of a later format."""
    try:
        version, rows = msgpack.unpackb(zlib.decompress(data))
        if version != FORMAT:
            raise ValueError(f"its format is {version}, this k2stream reads {FORMAT}")
        return {TopicPartition(topic, partition): (next_offset, blob) for topic, partition, next_offset, blob in rows}
    except (zlib.error, ValueError, TypeError, msgpack.UnpackException) as exc:
        raise LakeError(f"A tracker file cannot be read: {exc}. The table's rows are read instead.") from exc
