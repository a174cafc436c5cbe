"""Log batches of a fetch as one batch without a jump: trimmed to the position, holes named, losses told apart; pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from k2stream.records import Kind, LogBatch


@dataclass(frozen=True, slots=True)
class Joined:
    """What of a fetch may be delivered, and the jump that ends it, if any."""

    log_batches: tuple[LogBatch, ...]
    """Without a jump from the position to `next_offset`; empty if there is nothing new."""
    next_offset: int
    """Offset to read next."""
    jump_to: int | None = None
    """Offsets `next_offset..jump_to - 1` are missing and nothing says why; what came after them is left out."""


def join(log_batches: Iterable[LogBatch], position: int, *, is_compacted: bool) -> Joined:
    """Make one run out of `log_batches`, read at `position`.

    Brokers return whole batches, so the first may begin below the position: it keeps its bytes and gets a `from_offset`.
    A batch that ends below is dropped. A missing stretch is a hole where the topic is compacted, a jump elsewhere.
    """
    run: list[LogBatch] = []
    for log_batch in log_batches:
        if log_batch.last_offset < position:
            continue
        if log_batch.base_offset > position:
            if not is_compacted:
                return Joined(tuple(run), position, log_batch.base_offset)
            run.append(LogBatch.hole(log_batch.topic, log_batch.partition, position, log_batch.base_offset - 1, Kind.COMPACTED))
        run.append(_trimmed(log_batch, position))
        position = log_batch.last_offset + 1
    return Joined(tuple(run), position)


def _trimmed(log_batch: LogBatch, position: int) -> LogBatch:
    if log_batch.base_offset >= position or log_batch.from_offset == position:
        return log_batch
    if log_batch.kind is not Kind.DATA:
        return LogBatch.hole(log_batch.topic, log_batch.partition, position, log_batch.last_offset, log_batch.kind)
    return replace(log_batch, from_offset=position)
