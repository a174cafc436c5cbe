"""What is known of a partition beside its rows: markers, rejected records and losses, and which of them explain a gap."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from k2stream.records import TopicPartition
from k2stream.verdict import Marker, Reject


class Cause(StrEnum):
    """Why numbers are missing, strongest explanation first."""

    FEED_RECONNECT = "feed_reconnect"
    DEAD_LETTER = "dead_letter"
    TOPIC_LOSS = "topic_loss"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets that the log no longer has and nobody explained; whose records they were is not known."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Notes:
    """What a window holds beside rows, in any order."""

    markers: tuple[Marker, ...] = ()
    rejects: tuple[Reject, ...] = ()
    losses: tuple[Loss, ...] = ()


class Row(NamedTuple):
    """What the tracker reads of a row; also the memory of the row that last moved a stream on."""

    sequence: int
    time_us: int
    tp: TopicPartition
    offset: int


class Reconnect(NamedTuple):
    """A feed's word that it had lost its connection."""

    offset: int
    time_us: int


class SessionStart(NamedTuple):
    """A feed's word that numbers begin anew."""

    offset: int
    name: str
    time_us: int


NO_SESSION = SessionStart(-1, "", 0)


@dataclass(slots=True)
class Lane:
    """Notes of one record key in one partition. Between windows each list keeps its newest element only."""

    rejects: list[int] = field(default_factory=list)
    """Offsets, ascending."""
    reconnects: list[Reconnect] = field(default_factory=list)
    """Ascending in offset and in time: one that is not later than the last says nothing new."""
    sessions: list[SessionStart] = field(default_factory=list)
    """Ascending in offset and in name."""

    def add(self, marker: Marker) -> None:
        """Heed a marker unless it repeats or is older than what is known; markers must come in offset order."""
        if marker.kind == "session_start":
            if marker.session > (self.sessions[-1] if self.sessions else NO_SESSION).name:
                self.sessions.append(SessionStart(marker.offset, marker.session, marker.time_us))
        elif not self.reconnects or marker.time_us > self.reconnects[-1].time_us:
            self.reconnects.append(Reconnect(marker.offset, marker.time_us))

    def trim(self) -> None:
        """Forget all but the newest of each: whatever lies between two rows, its newest lies there too."""
        for notes in (self.rejects, self.reconnects, self.sessions):
            del notes[:-1]


class PartitionNotes:
    """Notes of one partition, asked about any row of the current window."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.losses: list[int] = []
        """Last lost offset of each loss, ascending."""

    def add_reject(self, key: bytes | None, offset: int) -> None:
        """A record that became no row. Whose it was, only its key can say; without a readable one it explains nothing."""
        try:
            symbol = key.decode() if key is not None else ""
        except UnicodeDecodeError:
            return
        if symbol:
            insort(self.lane(symbol).rejects, offset)

    def lane(self, symbol: str) -> Lane:
        """Notes of a record key, made if there are none."""
        return self.lanes.setdefault(symbol, Lane())

    def session(self, symbol: str, offset: int) -> SessionStart:
        """The latest session that was announced to `symbol` before `offset`."""
        lane = self.lanes.get(symbol)
        if lane is None:
            return NO_SESSION
        before = bisect_left(lane.sessions, offset, key=lambda s: s.offset)
        return lane.sessions[before - 1] if before else NO_SESSION

    def cause(self, symbol: str, previous: Row, row: Row) -> Cause:
        """Why numbers between the two rows are missing: what lies between their offsets, if they are of this partition."""
        if previous.tp != row.tp:
            return Cause.UPSTREAM
        lane = self.lanes.get(symbol)
        if lane is not None:
            before = bisect_left(lane.reconnects, row.offset, key=lambda r: r.offset)
            reconnect = lane.reconnects[before - 1] if before else None
            if reconnect and reconnect.offset > previous.offset and reconnect.time_us > previous.time_us:
                return Cause.FEED_RECONNECT
            if _lies_between(lane.rejects, previous.offset, row.offset):
                return Cause.DEAD_LETTER
        return Cause.TOPIC_LOSS if _lies_between(self.losses, previous.offset, row.offset) else Cause.UPSTREAM

    def close_window(self, known_symbols: Iterable[str]) -> None:
        """Keep what the next window may ask for.

        Only a known stream can have a gap, so rejects of a key that never was one go: a producer of garbage keys must
        not fill the memory. An announced session is kept for a symbol's first row.
        """
        for symbol, lane in list(self.lanes.items()):
            lane.trim()
            if not lane.sessions and symbol not in known_symbols:
                del self.lanes[symbol]
        del self.losses[:-1]

    def pack(self) -> list[Any]:
        """As plain values for msgpack."""
        lanes = [(symbol, lane.rejects, lane.reconnects, lane.sessions) for symbol, lane in sorted(self.lanes.items(), key=lambda item: item[0])]
        return [self.losses, lanes]

    @classmethod
    def unpack(cls, packed: list[Any]) -> "PartitionNotes":
        """Reverse of `pack`; raises TypeError or ValueError for anything else."""
        losses, lanes = packed
        notes = cls()
        notes.losses = [int(offset) for offset in losses]
        for symbol, rejects, reconnects, sessions in lanes:
            notes.lanes[symbol] = Lane(
                [int(offset) for offset in rejects], [Reconnect(*r) for r in reconnects], [SessionStart(*s) for s in sessions]
            )
        return notes


def _lies_between(offsets: list[int], after: int, before: int) -> bool:
    at = bisect_left(offsets, before)
    return at > 0 and offsets[at - 1] > after
