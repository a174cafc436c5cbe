"""State kept in this process: nothing survives it, and the tables rebuild what is missing."""

from collections.abc import Iterable, Mapping
from threading import Lock

from k2stream.records import TopicPartition
from k2stream.state.store import KeyChunk, Saved, Update


class MemoryStore:
    """The StateStore that needs nothing installed; also the plain statement of the rules that the Lua script follows."""

    def __init__(self) -> None:
        self._saved: dict[TopicPartition, Saved] = {}
        self._lock = Lock()

    def ping(self) -> None:
        """It always answers."""

    def load(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, Saved]:
        """What is stored of these partitions."""
        with self._lock:
            return {tp: self._saved[tp] for tp in tps if tp in self._saved}

    def save(self, updates: Mapping[TopicPartition, Update]) -> set[TopicPartition]:
        """Store what is newer; returns the partitions refused."""
        with self._lock:
            return {tp for tp, update in updates.items() if not self._save_one(tp, update)}

    def close(self) -> None:
        """Forget everything."""
        self._saved.clear()

    def _save_one(self, tp: TopicPartition, update: Update) -> bool:
        stored = self._saved.get(tp)
        if stored is not None and stored.stamp.table_uuid != update.stamp.table_uuid:
            stored = None
        if stored is not None and update.stamp.sequence_number <= stored.stamp.sequence_number:
            return update.stamp.sequence_number == stored.stamp.sequence_number
        if stored is not None and stored.stamp.next == update.since:
            floor_us, keys = max(stored.floor_us, update.floor_us), list(stored.keys)
        else:
            floor_us, keys = max(update.floor_us, update.floor_alone_us), []
        if update.chunk is not None:
            keys.append(update.chunk)
        kept = sorted((k for k in keys if k.max_time_us >= floor_us), key=_age)
        self._saved[tp] = Saved(update.stamp, update.tracker, kept, floor_us)
        return True


def _age(chunk: KeyChunk) -> int:
    return chunk.max_time_us
