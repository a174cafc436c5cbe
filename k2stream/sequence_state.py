"""One stream key's sequence: what is expected, what is missing, and what one more row means.

    sequence ==  expected    moves on
    sequence >   expected    opens a gap
    sequence <   expected    fills a gap, or is late
    a session begins         resets: numbers start anew, gaps of the session before can still be filled by its late rows

The definition of gaps, row by row; k2stream.gaps passes over rows that only move on, and takes those that fill a gap one after the other at once.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from k2stream.records import TopicPartition
from k2stream.sequence_notes import Cause, PartitionNotes, Row, SessionStart

HOUR_US = 3_600_000_000

BEGINNING_US = -(1 << 63)
"""Start of a stream's first session: no row is older."""

PAST_SESSIONS = 8
"""Sessions with open gaps that a stream remembers behind the current one; a row of an older session is late."""

OPEN_GAPS = 4096
"""Open gaps that a session remembers; beyond it the oldest is forgotten. A feed that numbers its rows over all symbols
together opens one with every row, and must not fill the memory."""

MOST = (1 << 63) - 1


class Kind(StrEnum):
    """What a gap event says."""

    OPENED = "opened"
    SHRUNK = "shrunk"
    FILLED = "filled"
    RESET = "reset"
    WAIVED = "waived"


class Change(NamedTuple):
    """What a row changed, apart from moving its stream on."""

    kind: Kind
    first: int
    """The gap as it was opened. For a reset: the highest number of the session that ended."""
    last: int
    """For a reset: the number that the new session begins with."""
    missing: int
    """Numbers of the gap that are still missing after the row."""
    cause: Cause
    previous: Row
    """The row that moved the stream on last before this one."""
    gap: "Gap | None" = None
    """What it happened to; None for a reset."""


@dataclass(slots=True)
class Gap:
    """Numbers that were passed over at once."""

    first: int
    last: int
    cause: Cause
    pieces: list[tuple[int, int]]
    """What is still missing: intervals, both ends included, ascending."""
    missing: int
    id: str = ""
    """Id of the event that opened it: two sessions may miss the same numbers. Empty in states of older versions."""

    @classmethod
    def open(cls, first: int, last: int, cause: Cause) -> "Gap":
        return cls(first, last, cause, [(first, last)], last - first + 1)

    def room(self, sequence: int) -> int:
        """How many numbers from `sequence` on are missing without a break."""
        at = self._piece(sequence)
        return 0 if at < 0 else max(0, self.pieces[at][1] - sequence + 1)

    def fill(self, sequence: int, count: int = 1) -> bool:
        """Take out `count` numbers from `sequence` on, `room` at most; False if it was not missing."""
        at = self._piece(sequence)
        if at < 0 or sequence > self.pieces[at][1]:
            return False
        first, last = self.pieces[at]
        rest = [(first, sequence - 1), (sequence + count, last)]
        self.pieces[at : at + 1] = [piece for piece in rest if piece[0] <= piece[1]]
        self.missing -= count
        return True

    def _piece(self, sequence: int) -> int:
        return bisect_right(self.pieces, sequence, key=lambda p: p[0]) - 1


class Filled(NamedTuple):
    """What rows changed that filled a gap one after the other."""

    gap: Gap
    taken: int
    """So many rows did."""
    missing: int
    """Numbers of the gap that are still missing after the last of them."""
    previous: Row
    """The row that moved the stream on last before them."""


@dataclass(slots=True)
class Session:
    """Numbers that belong together: from a start or reset to the next one."""

    start_us: int = BEGINNING_US
    """Event time; a row older than it is of an earlier session."""
    end_us: int = 0
    """Event time of the reset that ended it; of no meaning while it runs."""
    gaps: list[Gap] = field(default_factory=list)
    """Open gaps, ascending."""

    def open(self, gap: Gap) -> None:
        self.gaps.append(gap)
        if len(self.gaps) > OPEN_GAPS:
            del self.gaps[0]

    def fill(self, sequence: int, count: int = 1) -> Gap | None:
        """Take `count` numbers from `sequence` on, `room` at most, out of their gap; None if `sequence` is not missing."""
        at = self._gap(sequence)
        if at < 0 or not self.gaps[at].fill(sequence, count):
            return None
        gap = self.gaps[at]
        if not gap.missing:
            del self.gaps[at]
        return gap

    def room(self, sequence: int) -> int:
        """How many numbers of one gap are missing from `sequence` on without a break."""
        at = self._gap(sequence)
        return 0 if at < 0 else self.gaps[at].room(sequence)

    def _gap(self, sequence: int) -> int:
        return bisect_right(self.gaps, sequence, key=lambda g: g.first) - 1


@dataclass(slots=True)
class Stream:
    """State of one stream key. Begins with its first row, which opens nothing."""

    exchange: str
    symbol: str
    head: Row
    """The row that moved the stream on last; `head.sequence + 1` is expected."""
    home: TopicPartition
    """Where its last row came from; whoever owns that partition keeps this state. The tracker's to change."""
    rows: int = 1
    """Rows with a number so far: of two states of one stream the one with more is newer."""
    session_name: str = ""
    """The session last announced to it; empty before any."""
    session: Session = field(default_factory=Session)
    past: list[Session] = field(default_factory=list)
    """Ended sessions that still miss numbers, oldest first."""

    def judge(self, row: Row, notes: PartitionNotes) -> Change | None:
        """Take one more row; the order of the tests is the definition."""
        self.rows += 1
        if row.time_us < self.session.start_us:
            return self._fill(self._session_of(row.time_us), row)
        announced = notes.session(self.symbol, row.offset)
        if announced.name > self.session_name:
            self.session_name = announced.name
            return self._reset(row, notes, start_us=min(row.time_us, announced.time_us))
        if self._has_fallen(row):
            return self._reset(row, notes, start_us=row.time_us)
        if row.sequence <= self.head.sequence:
            return self._fill(self.session, row)
        return self._move_on(row, notes)

    def pass_over(self, count: int, last: Row) -> None:
        """Take `count` rows at once that each have the expected number, `last` being the last of them."""
        self.rows += count
        self.head = last

    def fill_many(self, row: Row, times_us: NDArray[np.int64], *, at_least: int) -> Filled | None:
        """Take `row` and rows from it on at once, whose numbers follow each other: all that fill one gap of the session in one piece and are
        neither of an ended session nor fall; none if they are fewer than `at_least`. Their times are given, the first one's first.
        No session may be announced before one of them."""
        times_us = times_us[: self.session.room(row.sequence)]
        if len(times_us) < at_least:
            return None
        is_other = times_us < self.session.start_us
        if 2 * row.sequence < self.head.sequence:
            is_other |= times_us >= self.head.time_us + HOUR_US
        count = int(is_other.argmax()) if is_other.any() else len(times_us)
        found = self.session.fill(row.sequence, count) if count >= at_least else None
        if found is None:
            return None
        self.rows += count
        return Filled(found, count, found.missing, self.head)

    def is_announced(self, session: SessionStart) -> bool:
        """True if `session` is not news: it was taken up, or a later one was."""
        return session.name <= self.session_name

    def _has_fallen(self, row: Row) -> bool:
        """Without a word from the feed only a deep fall after a long silence is a reset; anything less may be disorder."""
        last = self.head.sequence
        return row.sequence < last and 2 * row.sequence < last and row.time_us - self.head.time_us >= HOUR_US

    def _reset(self, row: Row, notes: PartitionNotes, *, start_us: int) -> Change:
        previous, self.head = self.head, row
        self.session.end_us = start_us
        if self.session.gaps:
            self.past = [*self.past, self.session][-PAST_SESSIONS:]
        self.session = Session(start_us)
        cause = notes.cause(self.symbol, previous, row)
        return Change(Kind.RESET, previous.sequence, row.sequence, 0, cause, previous)

    def _move_on(self, row: Row, notes: PartitionNotes) -> Change | None:
        previous, self.head = self.head, row
        if row.sequence == previous.sequence + 1:
            return None
        gap = Gap.open(previous.sequence + 1, row.sequence - 1, notes.cause(self.symbol, previous, row))
        self.session.open(gap)
        return Change(Kind.OPENED, gap.first, gap.last, min(gap.missing, MOST), gap.cause, previous, gap)

    def _fill(self, session: Session | None, row: Row) -> Change | None:
        gap = session.fill(row.sequence) if session is not None else None
        if gap is None:
            return None
        if session is not self.session:
            self.past = [s for s in self.past if s.gaps]
        kind = Kind.SHRUNK if gap.missing else Kind.FILLED
        return Change(kind, gap.first, gap.last, min(gap.missing, MOST), gap.cause, self.head, gap)

    def _session_of(self, time_us: int) -> Session | None:
        return next((s for s in reversed(self.past) if s.start_us <= time_us < s.end_us), None)

    def pack(self) -> list[Any]:
        """As plain values for msgpack."""
        sessions = [(s.start_us, s.end_us, [(g.first, g.last, g.cause, g.pieces, g.id) for g in s.gaps]) for s in (*self.past, self.session)]
        head = self.head
        return [self.exchange, self.symbol, self.rows, self.session_name, head.sequence, head.time_us, *head.tp, head.offset, sessions]

    @classmethod
    def unpack(cls, packed: list[Any], home: TopicPartition) -> "Stream":
        """Reverse of `pack`; raises TypeError or ValueError for anything else."""
        exchange, symbol, rows, name, sequence, time_us, topic, partition, offset, sessions = packed
        *past, session = [Session(start, end, [_gap(*gap) for gap in gaps]) for start, end, gaps in sessions]
        head = Row(sequence, time_us, TopicPartition(topic, partition), offset)
        return cls(exchange, symbol, head, home, rows, name, session, past)


def _gap(first: int, last: int, cause: str, pieces: list[list[int]], id: str = "") -> Gap:
    intervals = [(low, high) for low, high in pieces]
    return Gap(first, last, Cause(cause), intervals, sum(high - low + 1 for low, high in intervals), id)
