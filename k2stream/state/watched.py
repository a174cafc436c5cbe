"""A state store whose silence is seen: state is expendable, but somebody should know that it is gone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from k2stream.errors import StateError
from k2stream.health import Health
from k2stream.records import TopicPartition
from k2stream.state.store import Saved, StateStore, Update

CAUSE = "redis"


class WatchedStore:
    """Hands every call on and tells `health` how it went; raises what the store raises."""

    def __init__(self, store: StateStore, health: Health) -> None:
        self._store, self._health = store, health

    def ping(self) -> None:
        with self._told():
            self._store.ping()

    def load(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, Saved]:
        with self._told():
            return self._store.load(tps)

    def save(self, updates: Mapping[TopicPartition, Update]) -> set[TopicPartition]:
        with self._told():
            return self._store.save(updates)

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StateError as exc:
            self._health.red(CAUSE, str(exc))
            raise
        self._health.green(CAUSE)
