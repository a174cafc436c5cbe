"""Which keys the table may hold: bloom filters in generations over event time, in bounded memory.

A "no" is a promise, so everything that is forgotten raises a floor: below floor + tolerance every row is "maybe" and the
table is asked. Marks are routed by event time, so that forgetting the oldest generation raises the floor as little as
possible; a look-up asks every living generation, because a duplicate may come with another event time than the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from k2stream.records import TopicPartition

GENERATIONS = 6
"""More of them forget in smaller steps, but every row is looked up in each and each adds its false positives."""
BITS_PER_KEY = 25
"""With 5 words of 3 bits a full generation answers 1.0e-5 of new keys wrongly, six of them 6e-5: below the promised 1e-4."""
_PROBES = 5
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SIX_BITS = np.uint64(63)
_ONE = np.uint64(1)
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class SeenFilter:
    """One worker's filter for one data type. One thread at a time; floor() may be read from any.

    Event times are in microseconds. Memory is taken as generations are needed, up to `memory_bytes`.
    """

    def __init__(self, memory_bytes: int, horizon_us: int, tolerance_us: int) -> None:
        if memory_bytes < GENERATIONS * 64:
            raise ValueError(f"memory_bytes must be at least {GENERATIONS * 64}, found {memory_bytes}")
        self._words = memory_bytes // 8 // GENERATIONS
        self._capacity = self._words * 64 // BITS_PER_KEY
        self._horizon_us, self._tolerance_us = horizon_us, tolerance_us
        self._slot_us = max(1, horizon_us // (GENERATIONS // 2))
        self._generations: list[_Generation] = []
        self._floors: dict[TopicPartition, int] = {}
        self._common_floor = _LEAST
        """What was forgotten for want of memory or by the horizon, whatever the partition."""
        self._counts = {"rows": 0, "maybe": 0, "below_floor": 0, "marked": 0, "forgotten": 0}

    def maybe(self, keys: NDArray[np.uint64], times_us: NDArray[np.int64], tp: TopicPartition) -> NDArray[np.bool_]:
        """True for each row whose key the table may hold; False is final. Rows of a partition without a floor are all True."""
        is_known = tp in self._floors
        mask = times_us < min(self.floor(tp) + self._tolerance_us, _MOST) if is_known else np.ones(len(keys), bool)
        below = int(np.count_nonzero(mask))
        rows = np.flatnonzero(~mask) if below else None
        if below < len(keys):
            found = self._living_hits(keys if rows is None else keys[rows])
            mask[found if rows is None else rows[found]] = True
        self._counts["rows"] += len(keys)
        self._counts["below_floor"] += below
        self._counts["maybe"] += int(np.count_nonzero(mask))
        return mask

    def mark(self, keys: NDArray[np.uint64], times_us: NDArray[np.int64] | int) -> None:
        """Remember committed keys. One time for all must be that of the newest."""
        times = np.asarray(times_us, np.int64)
        if not len(keys):
            return
        self._forget_before(int(times.max()) - self._horizon_us)
        if times.ndim == 0:
            self._mark_slot(keys, np.broadcast_to(times, len(keys)), int(times) // self._slot_us)
            return
        first, last = int(times.min()) // self._slot_us, int(times.max()) // self._slot_us
        if first == last:
            self._mark_slot(keys, times, first)
            return
        slots = times // self._slot_us
        for slot in np.unique(slots)[::-1]:  # newest first: the old must not push out what the horizon keeps
            rows = np.flatnonzero(slots == slot)
            self._mark_slot(keys[rows], times[rows], int(slot))

    def set_floor(self, tp: TopicPartition, us: int) -> None:
        """Declare that every committed key of the partition with event time `us` or later has been marked."""
        self._floors[tp] = us

    def floor(self, tp: TopicPartition) -> int:
        """Event time from which the filter knows the partition's keys; only ever rises, but for set_floor."""
        return max(self._floors.get(tp, _MOST), self._common_floor)

    def stats(self) -> dict[str, object]:
        """Fill, memory and what the filter answered so far."""
        generations = [g for g in self._generations if g.keys]
        return {
            **self._counts,
            "keys": sum(g.keys for g in generations),
            "capacity": self._capacity * GENERATIONS,
            "memory_bytes": len(generations) * self._words * 8,
            "generations": len(generations),
            "common_floor_us": None if self._common_floor == _LEAST else self._common_floor,
            "expected_false_positives": sum(g.expected_false_positives() for g in generations),
        }

    def _living_hits(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        found = [g.hits(keys) for g in self._generations if g.keys]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _forget_before(self, us: int) -> None:
        """The horizon: what is older is not promised any more, whether its generation still stands or not."""
        self._common_floor = max(self._common_floor, us)
        for generation in [g for g in self._generations if g.newest_us < self._common_floor]:
            self._forget(generation)

    def _forget(self, generation: "_Generation") -> None:
        self._generations.remove(generation)
        self._counts["forgotten"] += generation.keys
        self._common_floor = max(self._common_floor, generation.newest_us + 1)

    def _mark_slot(self, keys: NDArray[np.uint64], times_us: NDArray[np.int64], slot: int) -> None:
        at = 0
        newest_us = int(times_us.max())
        while at < len(keys):
            if newest_us < self._common_floor:
                return  # below the floor the table is asked anyway
            generation = self._generation_for(slot, newest_us)
            if generation is None:
                self._common_floor = max(self._common_floor, newest_us + 1)
                return
            end = min(len(keys), at + self._capacity - generation.keys)
            generation.mark(keys[at:end], int(times_us[at:end].max()))
            self._counts["marked"] += end - at
            at = end

    def _generation_for(self, slot: int, newest_us: int) -> "_Generation | None":
        """A generation of this slot with room, made by forgetting the oldest if need be; None if these keys are the oldest."""
        for generation in self._generations:
            if generation.slot == slot and generation.keys < self._capacity:
                return generation
        if len(self._generations) >= GENERATIONS:
            oldest = min(self._generations, key=lambda g: g.newest_us)
            if newest_us < oldest.newest_us:
                return None
            self._forget(oldest)
        self._generations.append(_Generation(slot, self._words))
        return self._generations[-1]


@dataclass(slots=True)
class _Generation:
    """One bloom filter: a key sets 3 bits in each of 5 words."""

    slot: int
    size: int
    keys: int = 0
    newest_us: int = _LEAST
    words: NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        self.words = np.zeros(self.size, np.uint64)

    def mark(self, keys: NDArray[np.uint64], newest_us: int) -> None:
        for words, bits in self._probes(keys):
            np.bitwise_or.at(self.words, words, bits)
        self.keys += len(keys)
        self.newest_us = max(self.newest_us, newest_us)

    def hits(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row numbers of the keys that may have been marked here; most others leave after one or two probes."""
        rows = np.arange(len(keys))
        for probe in range(_PROBES):
            words, bits = self._probe(keys, probe)
            left = np.flatnonzero((self.words.take(words) & bits) == bits)
            rows, keys = rows[left], keys[left]
            if not len(rows):
                break
        return rows

    def expected_false_positives(self) -> float:
        set_bits = 1 - (1 - 1 / (64 * self.size)) ** (self.keys * 3 * _PROBES)
        return float(set_bits ** (3 * _PROBES))

    def _probes(self, keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint64]]]:
        for probe in range(_PROBES):
            yield self._probe(keys, probe)

    def _probe(self, keys: NDArray[np.uint64], probe: int) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """Word number and bits of each key's n-th probe: sums of the key's two halves (double hashing)."""
        first, second = keys[:, 0], keys[:, 1]
        place = first + second * np.uint64(probe) if probe else first.copy()
        place >>= np.uint64(32)
        place *= np.uint64(self.size)
        place >>= np.uint64(32)
        choice = second + first * np.uint64(probe) if probe else second.copy()
        choice *= _MIX
        choice >>= np.uint64(46)
        bits = _ONE << (choice & _SIX_BITS)
        choice >>= np.uint64(6)
        bits |= _ONE << (choice & _SIX_BITS)
        choice >>= np.uint64(6)
        bits |= _ONE << choice
        return place.astype(np.intp), bits
