"""What gaps are, said slowly: every record on its own, everything remembered, nothing shared with k2stream.gaps.

Used by tests, and by `k2 demo --faults` to say what must be found. Takes seconds for a million records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k2stream.gaps import Loss, Notes, event_id
from k2stream.sequence_state import OPEN_GAPS, PAST_SESSIONS
from k2stream.verdict import Marker, Reject

Event = dict[str, Any]
"""Columns of k2stream.gaps.EVENTS; times in microseconds."""


@dataclass(slots=True)
class _Opened:
    """A gap as it was opened, and every number of it that came since."""

    first: int
    last: int
    cause: str
    id: str = ""
    came: set[int] = field(default_factory=set)

    @property
    def missing(self) -> int:
        return self.last - self.first + 1 - len(self.came)


@dataclass(slots=True)
class _Era:
    """What happened between two resets."""

    start_us: float
    end_us: float = float("inf")
    gaps: list[_Opened] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """A stream key that had a row."""

    last: Mapping[str, Any]
    session: str
    eras: list[_Era]


class GapOracle:
    """Fed record by record, in the order of their offsets; the order of partitions among each other is the caller's.

    Markers and rejects must be fed too, each in its place. Duplicates must not be fed.
    """

    def __init__(self, data_type: str, small_rows: int) -> None:
        """`small_rows` as of k2stream.gaps.Tracker."""
        self._data_type = data_type
        self._small_rows = small_rows
        self._streams: dict[tuple[str, str], _Known] = {}
        self._sessions: dict[tuple[str, int, str], tuple[str, int]] = {}
        self._reconnects: dict[tuple[str, int, str], list[tuple[int, int]]] = {}
        self._rejects: dict[tuple[str, int, bytes | None], list[int]] = {}
        self._losses: dict[tuple[str, int], list[int]] = {}
        self.untracked = 0
        """Rows without a number."""

    def marker(self, topic: str, partition: int, offset: int, symbol: str, kind: str, session: str, time_us: int) -> None:
        """A session start or a reconnect of a symbol in one partition."""
        lane = (topic, partition, symbol)
        if kind == "session_start":
            if session > self._sessions.get(lane, ("", 0))[0]:
                self._sessions[lane] = (session, time_us)
            return
        said = self._reconnects.setdefault(lane, [])
        if all(time_us > earlier_us for _, earlier_us in said):
            said.append((offset, time_us))

    def reject(self, topic: str, partition: int, offset: int, key: bytes | None) -> None:
        """A record that could not become a row, with its Kafka key."""
        self._rejects.setdefault((topic, partition, key), []).append(offset)

    def loss(self, topic: str, partition: int, last: int) -> None:
        """Offsets up to `last` that the log lost."""
        self._losses.setdefault((topic, partition), []).append(last)

    def row(self, row: Mapping[str, Any]) -> Event | None:
        """A new row: exchange, symbol, source_sequence, timestamp (microseconds), topic, partition, offset. Its event, if it makes one."""
        if row["source_sequence"] is None:
            self.untracked += 1
            return None
        session, session_us = self._sessions.get((row["topic"], row["partition"], row["symbol"]), ("", 0))
        known = self._streams.get((row["exchange"], row["symbol"]))
        if known is None:
            self._streams[row["exchange"], row["symbol"]] = _Known(row, session, [_Era(float("-inf"))])
            return None
        if row["timestamp"] < known.eras[-1].start_us:
            return self._came(known, row, self._era_of(known, row["timestamp"]))
        if session > known.session:
            known.session = session
            return self._began(known, row, min(row["timestamp"], session_us))
        if self._fell(known, row):
            return self._began(known, row, row["timestamp"])
        if row["source_sequence"] > known.last["source_sequence"]:
            return self._went_on(known, row)
        return self._came(known, row, known.eras[-1])

    def missing(self) -> int:
        """Numbers that are missing now."""
        return sum(gap.missing for known in self._streams.values() for era in known.eras for gap in era.gaps)

    def _fell(self, known: _Known, row: Mapping[str, Any]) -> bool:
        now, last = row["source_sequence"], known.last["source_sequence"]
        an_hour_later = row["timestamp"] >= known.last["timestamp"] + 60 * 60 * 1_000_000
        return bool(now < last and 2 * now < last and an_hour_later)

    def _began(self, known: _Known, row: Mapping[str, Any], start_us: int) -> Event:
        event = self._event(row, known.last, "reset", (known.last["source_sequence"], row["source_sequence"]), 0, self._cause(known.last, row))
        known.eras[-1].end_us = start_us
        ended = [era for era in known.eras if era.gaps][-PAST_SESSIONS:]
        known.eras = [*ended, _Era(start_us)]
        known.last = row
        return event

    def _went_on(self, known: _Known, row: Mapping[str, Any]) -> Event | None:
        last, known.last = known.last, row
        first_missing, last_missing = last["source_sequence"] + 1, row["source_sequence"] - 1
        if first_missing > last_missing:
            return None
        gap = _Opened(first_missing, last_missing, self._cause(last, row))
        known.eras[-1].gaps = [*known.eras[-1].gaps, gap][-OPEN_GAPS:]
        event = self._event(row, last, "opened", (gap.first, gap.last), gap.missing, gap.cause)
        gap.id = event["gap_id"] = event["event_id"]
        return event

    def _came(self, known: _Known, row: Mapping[str, Any], era: _Era | None) -> Event | None:
        number = row["source_sequence"]
        for gap in era.gaps if era else ():
            if gap.first <= number <= gap.last and number not in gap.came:
                gap.came.add(number)
                if not gap.missing:
                    assert era is not None
                    era.gaps.remove(gap)
                kind = "shrunk" if gap.missing else "filled"
                return {**self._event(row, known.last, kind, (gap.first, gap.last), gap.missing, gap.cause), "gap_id": gap.id}
        return None

    def _era_of(self, known: _Known, time_us: int) -> _Era | None:
        return next((era for era in reversed(known.eras[:-1]) if era.start_us <= time_us < era.end_us), None)

    def _cause(self, last: Mapping[str, Any], row: Mapping[str, Any]) -> str:
        place = (row["topic"], row["partition"])
        if place != (last["topic"], last["partition"]):
            return "upstream"
        between = range(last["offset"] + 1, row["offset"])
        reconnects = self._reconnects.get((*place, row["symbol"]), [])
        if any(offset in between and time_us > last["timestamp"] for offset, time_us in reconnects):
            return "feed_reconnect"
        if any(offset in between for offset in self._rejects.get((*place, row["symbol"].encode()), [])):
            return "dead_letter"
        return "topic_loss" if any(offset in between for offset in self._losses.get(place, [])) else "upstream"

    def _event(
        self, row: Mapping[str, Any], last: Mapping[str, Any], kind: str, sequences: tuple[int, int], missing: int, cause: str
    ) -> Event:
        stream = (row["exchange"], row["symbol"], self._data_type)
        missing = min(missing, (1 << 63) - 1)  # what the column holds
        return {
            "event_id": event_id(stream, kind, sequences, (row["topic"], row["partition"], row["offset"])),
            "exchange": row["exchange"],
            "symbol": row["symbol"],
            "data_type": self._data_type,
            "kind": kind,
            "severity": "large" if missing > self._small_rows else "small",
            "first_sequence": sequences[0],
            "last_sequence": sequences[1],
            "missing": missing,
            "cause": cause,
            "timestamp": row["timestamp"],
            "previous_timestamp": last["timestamp"],
            "topic": row["topic"],
            "partition": row["partition"],
            "offset": row["offset"],
            "previous_offset": last["offset"],
            "gap_id": None,
            "waived_by": None,
            "waived_because": None,
        }

    def feed(self, rows: Iterable[Mapping[str, Any]], notes: Notes) -> list[Event]:
        """Rows in the order (topic, partition, offset), each after the notes that stand before it; the events of the rows."""
        waiting = sorted(_placed(notes), key=lambda n: n[0], reverse=True)
        events = []
        for row in rows:
            while waiting and waiting[-1][0] < (row["topic"], row["partition"], row["offset"]):
                self._note(waiting.pop()[1])
            if (event := self.row(row)) is not None:
                events.append(event)
        while waiting:
            self._note(waiting.pop()[1])
        return events

    def _note(self, note: Marker | Reject | Loss) -> None:
        match note:
            case Marker():
                self.marker(note.topic, note.partition, note.offset, note.symbol, note.kind, note.session, note.time_us)
            case Reject():
                self.reject(note.topic, note.partition, note.offset, note.key)
            case Loss():
                self.loss(note.topic, note.partition, note.last)


def _placed(notes: Notes) -> list[tuple[tuple[str, int, int], Marker | Reject | Loss]]:
    return [
        *(((m.topic, m.partition, m.offset), m) for m in notes.markers),
        *(((r.topic, r.partition, r.offset), r) for r in notes.rejects),
        *(((n.topic, n.partition, n.last), n) for n in notes.losses),
    ]


def oracle_events(rows: Iterable[Mapping[str, Any]], notes: Notes, *, data_type: str, small_rows: int) -> list[Event]:
    """Events of a whole log: all its new rows, in the order (topic, partition, offset), and all its notes."""
    return GapOracle(data_type, small_rows).feed(rows, notes)
