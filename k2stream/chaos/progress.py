"""How far the table is, looked at several times a second: when partitions went on, and how long they stood."""

import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

from k2stream.errors import K2Error
from k2stream.lake.reader import TableReader
from k2stream.records import TopicPartition
from k2stream.settings import Settings

LOOK_SECONDS = 0.7


@dataclass(slots=True)
class Target:
    """Offsets to be committed, and when that was seen."""

    ends: Mapping[TopicPartition, int]
    reached_at: float | None = None
    """Monotonic seconds."""


class Progress:
    """A thread that reads the head's vector; any thread may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="chaos-progress", daemon=True)
        self._lock = threading.Lock()
        self._next: dict[TopicPartition, int] = {}
        self._moved: dict[TopicPartition, float] = {}
        """When each partition was last seen going on."""
        self._longest = 0.0
        self._targets: list[Target] = []
        self.sequence_number = 0
        """Of the newest snapshot: how many there were."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def vector(self) -> dict[TopicPartition, int]:
        """`next` of every partition, as last seen."""
        with self._lock:
            return dict(self._next)

    def expect(self, ends: Mapping[TopicPartition, int]) -> Target:
        """Something to wait for; it tells by itself when it was reached."""
        target = Target(ends)
        with self._lock:
            self._targets.append(target)
        return target

    def reset_stall(self) -> None:
        """Count standing still from now on."""
        with self._lock:
            now = time.monotonic()
            self._moved = dict.fromkeys(self._moved, now)
            self._longest = 0.0

    def longest_stall(self) -> float:
        """Seconds that a partition stood still at most since `reset_stall`; counted for those that had a row to wait for."""
        with self._lock:
            now = time.monotonic()
            return max([self._longest, *(now - moved for moved in self._moved.values())])

    def _look(self) -> None:
        while not self._stopping.is_set():
            with suppress(K2Error), closing(TableReader.open_reader(self._settings, "trades")) as reader:  # no table yet, or a catalog that is away
                while not self._stopping.wait(LOOK_SECONDS):
                    head = reader.head()
                    self._see({tp: entry.next for tp, entry in head.vector.items()}, head.sequence_number)
            self._stopping.wait(LOOK_SECONDS)

    def _see(self, vector: Mapping[TopicPartition, int], sequence_number: int) -> None:
        now = time.monotonic()
        with self._lock:
            for tp, reached in vector.items():
                if reached != self._next.get(tp):
                    self._longest = max(self._longest, now - self._moved.get(tp, now))
                    self._next[tp], self._moved[tp] = reached, now
            self.sequence_number = sequence_number
            for target in self._targets:
                if all(vector.get(tp, 0) >= end for tp, end in target.ends.items()):
                    target.reached_at = now
            self._targets = [target for target in self._targets if target.reached_at is None]
