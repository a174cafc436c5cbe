"""The offset vector and the ledger that every snapshot carries; pure."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from k2stream.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the offsets of one topic partition; the terms of the ledger."""

    rows: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    markers: int = 0
    holes: int = 0
    retired: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            self.dead_letters + other.dead_letters,
            self.markers + other.markers,
            self.holes + other.holes,
            self.retired + other.retired,
        )

    @property
    def offsets(self) -> int:
        """Offsets accounted for: equals next - start when nothing is lost (`retired` rows stay counted in rows)."""
        return self.rows + self.duplicates + self.dead_letters + self.markers + self.holes


class Mark(NamedTuple):
    """A log batch by which a log is known again: a topic that was made anew has another one there."""

    base_offset: int
    crc: int
    """As its header has it: 32 bits, of everything behind them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One topic partition in the offset vector of a snapshot."""

    start: int
    next: int
    counts: Counts = field(default_factory=Counts)
    """The ledger: cumulative since `start`."""
    tracker_file: str | None = None
    """The newest tracker state file that speaks of this partition."""
    mark: Mark | None = None
    """The last committed log batch that held records; None before the first, and in vectors of older versions."""
    lost_from: int | None = None
    """The log lost [lost_from, start) before they were read, and a person accepted it; None: nothing was lost."""


Vector = dict[TopicPartition, Entry]

Spans = Mapping[TopicPartition, tuple[int, int]]
"""Per partition the first offset that a window takes and the one after its last."""

FORMAT = 2
COLUMNS = {1: 11, 2: 14}
"""Format -> numbers a partition has in it; format 1 knew no marks and no losses."""


class Stale(NamedTuple):
    """A partition whose window does not begin where the table ends."""

    tp: TopicPartition
    expected: int
    """First offset of the window."""
    committed: int | None
    """The table's `next`; None: the table has no entry."""


def stale_partitions(vector: Vector, spans: Spans) -> list[Stale]:
    """The fence: partitions of `spans` whose stored `next` is not where the window starts; empty means go on."""
    ends = {tp: vector[tp].next if tp in vector else None for tp in spans}
    return [Stale(tp, start, ends[tp]) for tp, (start, _) in spans.items() if ends[tp] != start]


def advanced(
    vector: Vector, spans: Spans, deltas: Mapping[TopicPartition, Counts], marks: Mapping[TopicPartition, Mark] | None = None
) -> Vector:
    """The vector after a window: its own partitions moved on, counted and marked, all others as they were."""
    moved = dict(vector)
    for tp, (_, next_offset) in spans.items():
        entry = vector[tp]
        mark = (marks or {}).get(tp, entry.mark)
        moved[tp] = replace(entry, next=next_offset, counts=entry.counts + deltas.get(tp, Counts()), mark=mark)
    return moved


def pack(vector: Vector) -> str:
    """The vector as text for a snapshot summary: about 16 bytes a partition, 6 of them for the mark (as JSON it would be 180).

    One zlib stream in base64: a JSON head with the names, then the numbers column by column. Numbers of a column are
    alike, so their bytes are stored plane by plane; `rows` is stored as what is missing from the ledger, mostly 0.
    """
    entries = sorted(vector.items())
    topics = sorted({tp.topic for tp in vector})
    trackers = sorted({e.tracker_file for e in vector.values() if e.tracker_file is not None})
    topic_of, tracker_of = _places(topics), _places(trackers)
    numbers = [
        (
            topic_of[tp.topic],
            tp.partition,
            e.start,
            e.next - e.start,
            e.next - e.start - e.counts.offsets,
            e.counts.duplicates,
            e.counts.dead_letters,
            e.counts.markers,
            e.counts.holes,
            e.counts.retired,
            -1 if e.tracker_file is None else tracker_of[e.tracker_file],
            0 if e.mark is None else e.next - e.mark.base_offset,
            0 if e.mark is None else e.mark.crc,
            0 if e.lost_from is None else e.start - e.lost_from,
        )
        for tp, e in entries
    ]
    head = json.dumps([FORMAT, len(entries), topics, trackers], separators=(",", ":")).encode()
    planes = np.array(numbers, dtype="<i8").T.copy().view(np.uint8).reshape(-1, 8).T if numbers else np.empty(0, np.uint8)
    return base64.b64encode(zlib.compress(head + b"\n" + planes.tobytes(), 9)).decode("ascii")


def unpack(text: str) -> Vector:
    """The vector that `pack` wrote; raises ValueError if it is another text or of a later format."""
    try:
        head, _, body = zlib.decompress(base64.b64decode(text, validate=True)).partition(b"\n")
        version, count, topics, trackers = json.loads(head)
        if version not in COLUMNS:
            raise ValueError(f"its format is {version}, this k2stream reads up to {FORMAT}")
        return _entries(_columns(body, count, COLUMNS[version]), topics, trackers)
    except (zlib.error, IndexError, TypeError, ValueError) as exc:
        raise ValueError(f"not an offset vector: {exc}") from exc


def _columns(body: bytes, count: int, columns: int) -> NDArray[np.int64]:
    numbers = np.zeros((COLUMNS[FORMAT], count), dtype=np.int64)
    if count:
        planes = np.frombuffer(body, np.uint8).reshape(8, columns * count)
        numbers[:columns] = np.ascontiguousarray(planes.T).view("<i8").reshape(columns, count)
    return numbers


def _entries(columns: NDArray[np.int64], topics: list[str], trackers: list[str]) -> Vector:
    vector: Vector = {}
    for topic, partition, start, length, missing, duplicates, letters, markers, holes, retired, tracker, back, crc, lost in columns.T.tolist():
        rows = length - missing - duplicates - letters - markers - holes
        counts = Counts(rows, duplicates, letters, markers, holes, retired)
        name = None if tracker < 0 else trackers[tracker]
        mark = Mark(start + length - back, crc) if back else None
        vector[TopicPartition(topics[topic], partition)] = Entry(start, start + length, counts, name, mark, start - lost if lost else None)
    return vector


def _places(names: list[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}
