"""Known trouble for the demo: a seeded mix of faults put into a recording, and what must be found of it. Pure.

Faults of one symbol lie three rows apart at least, and off the first and last rows of a session, so that each has its own
effect: opened gaps = missing + spoiled + null + late, of which the late ones are filled again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import reduce
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from k2stream.feed.avro import encode_one
from k2stream.feed.publisher import SESSION_START, FeedMarker
from k2stream.feed.recorded import Rows, Script, Step
from k2stream.feed.recorded import script as clean_script
from k2stream.feed.recording import MessageIds, Recording
from k2stream.feed.spoiled import SPOILS
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Reason

HOUR_US = 3_600_000_000

APART = 4
"""Rows from one fault of a symbol to its next: three lie between."""

FEED_DELAY_US = 1_500
"""How much later the second feed reports the same trade."""

SKIPS = (1, 3, 25)
"""Numbers that missing faults skip, in turn; more than 10 is a large gap."""

RANGE_ROWS = 300


class Trouble(StrEnum):
    """Faults that spoil no record; the others are named in SPOILS."""

    SAME_RECORD_AGAIN = "same_record_again"
    SAME_TRADE_FROM_SECOND_FEED = "same_trade_from_second_feed"
    WHOLE_RANGE_AGAIN = "whole_range_again"
    MISSING_SEQUENCE = "missing_sequence"
    LATE_SEQUENCE = "late_sequence"
    NULL_SEQUENCE = "null_sequence"
    RESET_WITH_MARKER = "reset_with_marker"
    RESET_AFTER_AN_HOUR = "reset_after_an_hour"


OF_MANY = (
    Trouble.SAME_RECORD_AGAIN,
    Trouble.SAME_TRADE_FROM_SECOND_FEED,
    Trouble.MISSING_SEQUENCE,
    Trouble.LATE_SEQUENCE,
    Trouble.NULL_SEQUENCE,
    *SPOILS,
)
"""Faults that are put in as often as was asked for."""

RESETS = 2
RANGES = 2
"""Faults that are rare wherever they come from."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What was put in, and what must be found in a run on a fresh home."""

    faults: Mapping[str, int]
    """How often, by kind."""
    rows: int
    """Rows that the table must hold."""
    duplicates: int
    dead_letters: Mapping[Reason, int]
    opened: int
    """Gaps opened."""
    filled: int
    """Gaps filled."""
    resets: int
    """Resets, those at the sessions' starts included."""
    missing: int
    """Numbers still missing at the end."""
    untracked: int
    """Rows without a number."""
    spoiled: tuple[str, ...] = field(repr=False)
    """trade_id of every trade that must not be in the table."""

    def __add__(self, other: "Injected") -> "Injected":
        return Injected(
            dict(Counter(self.faults) + Counter(other.faults)),
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            dict(Counter(self.dead_letters) + Counter(other.dead_letters)),
            self.opened + other.opened,
            self.filled + other.filled,
            self.resets + other.resets,
            self.missing + other.missing,
            self.untracked + other.untracked,
            self.spoiled + other.spoiled,
        )


class Piece(NamedTuple):
    """Rows of one symbol in one session."""

    symbol: str
    session: str
    rows: NDArray[np.int64]
    """Their places in the recording, ascending."""


class Slot(NamedTuple):
    """A place where a fault may be put."""

    piece: int
    position: int
    """Row of the piece."""


def inject(
    recordings: Sequence[Recording], *, seed: int, schema_ids: Mapping[str, int], ids: MessageIds, times_each: int = 12
) -> tuple[list[Script], Injected]:
    """Recordings of trades with faults, and the sum of what was put in. Equal arguments give equal faults.

    `ids` are those of the second feed; `schema_ids`, by topic, frame the records that are made here. A short recording gets fewer of
    each kind.
    """
    plans = [Plan(recording, Random(f"{seed}/{recording.topic}"), times_each) for recording in recordings]  # noqa: S311 - must be repeatable
    return [plan.script(schema_ids[plan.recording.topic], ids) for plan in plans], reduce(lambda a, b: a + b, (plan.injected() for plan in plans))


class Plan:
    """Which row of one recording gets which fault."""

    def __init__(self, recording: Recording, random: Random, times_each: int) -> None:
        self.recording = recording
        self.pieces = _pieces(recording)
        self._time_us = recording.rows["timestamp"].cast(pa.int64()).to_numpy()
        self.faults: dict[Slot, str] = {}
        self._place(random, times_each)
        self.skips = {slot: SKIPS[n % len(SKIPS)] for n, slot in enumerate(self._slots(Trouble.MISSING_SEQUENCE))}
        self.ranges = self._ranges(random)

    def _place(self, random: Random, times_each: int) -> None:
        silent = list(self._silences())
        for slot in random.sample(silent, min(RESETS, len(silent))):
            if all(other.piece != slot.piece for other in self.faults):
                self.faults[slot] = Trouble.RESET_AFTER_AN_HOUR
        free = [slot for slot in self._free() if all(s.piece != slot.piece or abs(s.position - slot.position) >= APART for s in self.faults)]
        random.shuffle(free)
        self._place_resets(free)
        for kind in OF_MANY * min(times_each, len(free) // len(OF_MANY)):
            self.faults[free.pop()] = kind

    def _place_resets(self, free: list[Slot]) -> None:
        """At most one of a piece, and none beside the other kind: names of sessions must ascend."""
        for slot in [s for s in free if self.pieces[s.piece].session]:
            taken = [s for s, kind in self.faults.items() if kind == Trouble.RESET_WITH_MARKER]
            if len(taken) == RESETS or len(free) < len(OF_MANY):
                return
            if slot.piece not in {s.piece for s in self.faults}:
                self.faults[slot] = Trouble.RESET_WITH_MARKER
                free.remove(slot)

    def _free(self) -> Iterator[Slot]:
        for number, piece in enumerate(self.pieces):
            yield from (Slot(number, position) for position in range(APART - 1, len(piece.rows) - APART + 1, APART))

    def _silences(self) -> Iterator[Slot]:
        """Rows an hour or more after their symbol's row before, where a fall to number 1 is a reset without a marker."""
        for number, piece in enumerate(self.pieces):
            pauses = np.diff(self._time_us[piece.rows], prepend=self._time_us[piece.rows[:1]])
            inner = np.arange(len(piece.rows))
            found = np.flatnonzero((pauses >= HOUR_US) & (inner >= APART) & (inner < len(piece.rows) - APART + 1))
            yield from (Slot(number, int(position)) for position in found)

    def _ranges(self, random: Random) -> list[Rows]:
        """Ranges of rows that are published a second time at their session's end, when every late row has come."""
        ends = self._session_ends()
        found = []
        for first, end in random.sample(ends, min(RANGES, len(ends))):
            length = min(RANGE_ROWS, max(1, (end - first) // 3))
            start = random.randrange(first, end - length + 1)
            found.append(Rows(start, start + length))
        return found

    def _session_ends(self) -> list[tuple[int, int]]:
        """First row and end of each session, all symbols together."""
        begins: dict[str, int] = {}
        for session in self.recording.sessions:
            begins.setdefault(session.name, session.first_row)
        starts = sorted(begins.values())
        return list(zip(starts, [*starts[1:], self.recording.rows.num_rows], strict=False))

    def _slots(self, *kinds: str) -> list[Slot]:
        return sorted(slot for slot, kind in self.faults.items() if kind in kinds)

    def row_of(self, slot: Slot) -> int:
        """Place in the recording."""
        return int(self.pieces[slot.piece].rows[slot.position])

    def numbered(self) -> Recording:
        """The recording with its sequence numbers as they are to be published."""
        numbers = self.recording.rows["source_sequence"].to_numpy().copy()
        nulls = np.zeros(len(numbers), bool)
        for slot, kind in sorted(self.faults.items()):
            after = self.pieces[slot.piece].rows[slot.position :]
            if kind == Trouble.MISSING_SEQUENCE:
                numbers[after] += self.skips[slot]
            elif kind in (Trouble.RESET_WITH_MARKER, Trouble.RESET_AFTER_AN_HOUR):
                numbers[after] -= numbers[after[0]] - 1
            elif kind == Trouble.NULL_SEQUENCE:
                nulls[after[0]] = True
        rows = self.recording.rows
        at = rows.schema.get_field_index("source_sequence")
        return replace(self.recording, rows=rows.set_column(at, "source_sequence", pa.array(numbers, mask=nulls)))

    def script(self, schema_id: int, ids: MessageIds) -> Script:
        """What to publish, in order."""
        recording = self.numbered()
        edits = Edits()
        for slot, kind in sorted(self.faults.items(), key=lambda f: self.row_of(f[0])):
            self._edit(edits, recording, slot, kind, schema_id, ids)
        for first, end in self._session_ends():
            edits.after.setdefault(end - 1, []).extend(s for r in self.ranges if first <= r.first < end for s in self._sound(r))
        return Script(recording, tuple(edits.applied(clean_script(recording).steps)))

    def _edit(self, edits: "Edits", recording: Recording, slot: Slot, kind: str, schema_id: int, ids: MessageIds) -> None:
        row = self.row_of(slot)
        piece = self.pieces[slot.piece]
        if kind in SPOILS:
            spoiled = SPOILS[kind].bytes_of(_values(recording, row), schema_id=schema_id)
            edits.instead[row] = [_record(recording, row, spoiled)]
        elif kind == Trouble.SAME_RECORD_AGAIN:
            edits.after[row] = [Rows(row, row + 1)]
        elif kind == Trouble.SAME_TRADE_FROM_SECOND_FEED:
            edits.after[row] = [_record(recording, row, _second_report(recording, row, schema_id, ids))]
        elif kind == Trouble.LATE_SEQUENCE:
            edits.instead[row] = []
            edits.after[int(piece.rows[slot.position + 1])] = [Rows(row, row + 1)]
        elif kind == Trouble.RESET_WITH_MARKER:
            edits.before[row] = [FeedMarker(piece.symbol, SESSION_START, f"{piece.session}.1", int(self._time_us[row]))]

    def _sound(self, rows: Rows) -> Iterator[Rows]:
        """The range without the trades that were spoiled: those never came, so they cannot come again."""
        at = rows.first
        for row in sorted(r for r in self._spoiled_rows() if rows.first <= r < rows.stop):
            if row > at:
                yield Rows(at, row)
            at = row + 1
        if rows.stop > at:
            yield Rows(at, rows.stop)

    def _spoiled_rows(self) -> list[int]:
        return [self.row_of(slot) for slot in self._slots(*SPOILS)]

    def injected(self) -> Injected:
        """What must be found."""
        faults: Counter[str] = Counter(str(kind) for kind in self.faults.values())
        faults[Trouble.WHOLE_RANGE_AGAIN] = len(self.ranges)
        letters: Counter[Reason] = Counter()
        for kind, spoil in SPOILS.items():
            letters[spoil.reason] += faults[kind]
        spoiled = sum(letters.values())
        again = sum(r.stop - r.first for range_ in self.ranges for r in self._sound(range_))
        null, late = faults[Trouble.NULL_SEQUENCE], faults[Trouble.LATE_SEQUENCE]
        named = [s.symbol for s in self.recording.sessions if s.name]
        return Injected(
            faults={str(kind): count for kind, count in sorted(faults.items()) if count},
            rows=self.recording.rows.num_rows - spoiled,
            duplicates=faults[Trouble.SAME_RECORD_AGAIN] + faults[Trouble.SAME_TRADE_FROM_SECOND_FEED] + again,
            dead_letters={reason: count for reason, count in letters.items() if count},
            opened=faults[Trouble.MISSING_SEQUENCE] + spoiled + null + late,
            filled=late,
            resets=faults[Trouble.RESET_WITH_MARKER] + faults[Trouble.RESET_AFTER_AN_HOUR] + len(named) - len(set(named)),
            missing=sum(self.skips.values()) + spoiled + null,
            untracked=null,
            spoiled=tuple(self.recording.rows["trade_id"].take(pa.array(sorted(self._spoiled_rows()), pa.int64())).to_pylist()),
        )


class Edits:
    """Steps before, after and instead of single rows."""

    def __init__(self) -> None:
        self.before: dict[int, list[Step]] = {}
        self.instead: dict[int, list[Step]] = {}
        self.after: dict[int, list[Step]] = {}

    def applied(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The steps with the edits put in where their rows are."""
        rows = sorted({*self.before, *self.instead, *self.after})
        for step in steps:
            if isinstance(step, Rows):
                yield from self._within(step, [r for r in rows if step.first <= r < step.stop])
            else:
                yield step

    def _within(self, whole: Rows, edited: list[int]) -> Iterator[Step]:
        at = whole.first
        for row in edited:
            if row > at:
                yield Rows(at, row)
            yield from self.before.get(row, ())
            yield from self.instead.get(row, (Rows(row, row + 1),))
            yield from self.after.get(row, ())
            at = row + 1
        if whole.stop > at:
            yield Rows(at, whole.stop)


def _pieces(recording: Recording) -> list[Piece]:
    symbols = recording.rows["symbol"].combine_chunks().dictionary_encode()
    codes = symbols.indices.to_numpy()
    pieces = []
    for code, symbol in enumerate(symbols.dictionary.to_pylist()):
        rows = np.flatnonzero(codes == code)
        for session in (s for s in recording.sessions if s.symbol == symbol):
            pieces.append(Piece(symbol, session.name, rows[: session.rows]))
            rows = rows[session.rows :]
    return pieces


def _values(recording: Recording, row: int) -> dict[str, Any]:
    values: dict[str, Any] = recording.rows.slice(row, 1).to_pylist()[0]
    return values


def _second_report(recording: Recording, row: int, schema_id: int, ids: MessageIds) -> bytes:
    """The same trade as another feed reports it: another message, a little later."""
    values = _values(recording, row)
    later = pa.scalar(values["ingestion_timestamp"], pa.timestamp("us", "UTC")).cast(pa.int64()).as_py() + FEED_DELAY_US
    return encode_one({**values, "message_id": ids.take(1)[0].as_py(), "ingestion_timestamp": later}, schema="trade_v2", schema_id=schema_id)


def _record(recording: Recording, row: int, value: bytes) -> Outgoing:
    """Under the trade's own key, so that it lands between its symbol's rows."""
    symbol = recording.rows["symbol"][row].as_py()
    ingested_ms = recording.rows["ingestion_timestamp"].cast(pa.int64())[row].as_py() // 1000
    return Outgoing(symbol.encode(), value, ingested_ms)
