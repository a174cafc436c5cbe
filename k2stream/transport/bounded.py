"""Records in few enough bytes for one log batch each."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

BATCH_BYTES = 512 << 10
"""Kafka refuses a log batch of more than 1 MB, unless its topic says otherwise."""
BATCH_RECORDS = 500


def bounded(items: Iterable[T], size_bytes: Callable[[T], int], *, most_bytes: int = BATCH_BYTES, most: int = BATCH_RECORDS) -> Iterator[list[T]]:
    """`items` in their order, as lists of at most `most` and together at most `most_bytes`; one that is larger stands alone. Nothing is made ahead."""
    few: list[T] = []
    held_bytes = 0
    for item in items:
        own_bytes = size_bytes(item)
        if few and (len(few) == most or held_bytes + own_bytes > most_bytes):
            yield few
            few, held_bytes = [], 0
        few.append(item)
        held_bytes += own_bytes
    if few:
        yield few
