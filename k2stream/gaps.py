"""Sequence gaps: what the numbers of a feed say is missing, judged over new rows in the order of their offsets.

Pure: events depend on the records' order alone, so a window read again gives the same events with the same ids.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa

from k2stream.records import TopicPartition
from k2stream.rows import TIMESTAMP
from k2stream.sequence_notes import Cause, Loss, Notes, PartitionNotes, Row
from k2stream.sequence_runs import Run, Runs
from k2stream.sequence_state import MOST, Change, Filled, Kind, Stream

__all__ = ["EVENTS", "Cause", "Kind", "Loss", "Notes", "StreamKey", "Tracker", "event_id", "severity_of"]

StreamKey = tuple[str, str]
"""(exchange, symbol)."""

EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("data_type", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("first_sequence", pa.int64(), nullable=False),
        pa.field("last_sequence", pa.int64(), nullable=False),
        pa.field("missing", pa.int64(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("previous_timestamp", TIMESTAMP),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("previous_offset", pa.int64()),
        pa.field("gap_id", pa.string()),
        pa.field("waived_by", pa.string()),
        pa.field("waived_because", pa.string()),
    ]
)
"""One event a row that opens, shrinks (or splits), fills or resets, and one when a person waives a gap.

first_sequence and last_sequence are the gap *as it was opened* in every event of it, so that its newest event is its
state; missing is what is still missing of it. Of a reset they are the last number before and the first after.
gap_id is the id of the event that opened the gap: two sessions may miss the same numbers. A reset has none, nor have events of gaps that
an older version opened. An event that waives has time and origin of the one that opened.
The previous row is the one that moved the stream on last: late rows and fills are not.
"""

MANY_ROWS = 16
"""So many rows are worth a table of their own among the events, which costs what some twenty events do."""
MOST_ROWS = 4096
"""Looked at for that at once: whatever times they have, a run takes no longer than in proportion to its rows."""

Happened = tuple[Stream, int, Change | Filled]
"""Stream, its first row's number in the runs, and what it changed."""

VERSION = 1
NAME_BYTES = 256
"""What an event is named by fits; msgpack takes and gives back a quarter of a megabyte otherwise, for each event."""


class Tracker:
    """Sequences of every stream key that this worker reads, of one data type.

    One user at a time, but for `summary`. State belongs to the partition that a stream's last row came from.
    """

    def __init__(self, data_type: str, small_rows: int) -> None:
        """`small_rows`: a gap of at most so many numbers is small."""
        self._data_type = data_type
        self._small_rows = small_rows
        self._streams: dict[StreamKey, Stream] = {}
        self._homes: dict[TopicPartition, dict[StreamKey, Stream]] = {}
        self._notes: dict[TopicPartition, PartitionNotes] = {}
        self._untracked: dict[TopicPartition, int] = {}
        self._symbols: set[str] = set()

    def settle(self, rows: pa.Table, notes: Notes) -> pa.Table:
        """Advance by a window of new rows in the order (topic, partition, offset); returns EVENTS in that order."""
        self._note(notes)
        runs = Runs.of(rows)
        found = list(self._advance(runs, notes))
        for partition in self._notes.values():
            partition.close_window(self._symbols)
        return self._events(runs, found)

    def replay(self, rows: pa.Table) -> None:
        """Advance over rows whose events were taken long ago; same order, same state as `settle`."""
        self.settle(rows, Notes())

    def lose(self, loss: Loss) -> None:
        """Know that the log lost these offsets: gaps between rows on both sides of them have that cause."""
        self._note(Notes(losses=(loss,)))

    def snapshot(self, tp: TopicPartition) -> bytes:
        """State of the streams at home in `tp` and the notes of `tp`; about 80 bytes a stream. Equal states are equal bytes."""
        streams = [stream.pack() for _, stream in sorted(self._homes.get(tp, {}).items())]
        notes = self._notes.get(tp, PartitionNotes()).pack()
        packed: bytes = msgpack.packb((VERSION, self._data_type, self._untracked.get(tp, 0), streams, notes))
        return packed

    def restore(self, tp: TopicPartition, blob: bytes) -> bool:
        """Take up what `snapshot` gave; False, and nothing changed, if it is unreadable or of another version or data type.

        A stream that came home elsewhere since keeps its newer state.
        """
        try:
            version, data_type, untracked, streams, notes = msgpack.unpackb(blob)
            if (version, data_type) != (VERSION, self._data_type):
                return False
            found = [Stream.unpack(packed, tp) for packed in streams]
            noted, untracked = PartitionNotes.unpack(notes), int(untracked)
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            return False
        self._notes[tp], self._untracked[tp] = noted, untracked
        for stream in found:
            known = self._streams.get((stream.exchange, stream.symbol))
            if known is None or known.rows <= stream.rows:
                self._keep(stream)
        return True

    def summary(self) -> dict[str, int]:
        """For people; may be asked from any thread."""
        streams = list(self._streams.values())
        gaps = [gap for stream in streams for session in (*stream.past, stream.session) for gap in list(session.gaps)]
        return {
            "streams": len(streams),
            "open_gaps": len(gaps),
            "missing": sum(gap.missing for gap in gaps),
            "untracked": sum(list(self._untracked.values())),
        }

    def _note(self, notes: Notes) -> None:
        for marker in sorted(notes.markers, key=lambda m: m.offset):
            self._notes_of(marker.topic, marker.partition).lane(marker.symbol).add(marker)
        for reject in notes.rejects:
            self._notes_of(reject.topic, reject.partition).add_reject(reject.key, reject.offset)
        for loss in sorted(notes.losses, key=lambda n: n.last):
            self._notes_of(loss.topic, loss.partition).losses.append(loss.last)

    def _notes_of(self, topic: str, partition: int) -> PartitionNotes:
        tp = TopicPartition(topic, partition)
        if tp not in self._notes:
            self._notes[tp] = PartitionNotes()
        return self._notes[tp]

    def _advance(self, runs: Runs, notes: Notes) -> Iterator[Happened]:
        """What happened, stream by stream."""
        for tp, count in runs.untracked.items():
            self._untracked[tp] = self._untracked.get(tp, 0) + count
        for run in runs.runs(m for m in notes.markers if m.kind == "session_start"):
            yield from self._take(runs, run)

    def _take(self, runs: Runs, run: Run) -> Iterator[Happened]:
        """Rows that only move their stream on are passed over at once, those that fill a gap one after the other too; all others are judged one by one."""
        key, at = runs.streams[run.stream], run.first_row
        notes = self._notes_of(*runs.places[run.place])
        stream = self._streams.get(key)
        while at < run.last_row:
            row = runs.row(at)
            if stream is None:
                stream = Stream(*key, head=row, home=row.tp, session_name=notes.session(key[1], row.offset).name)
                self._keep(stream)
            elif _moves_on(stream, row, run, notes):
                stream.pass_over(run.last_row - at, runs.row(run.last_row - 1))
                at = run.last_row
            elif (filled := _filled(stream, row, runs, run, at, notes)) is not None:
                yield stream, at, filled
                at += filled.taken - 1
            elif (change := stream.judge(row, notes)) is not None:
                yield stream, at, change
            at += 1
        if stream is not None:
            self._bring_home(stream, runs.places[run.place])

    def _keep(self, stream: Stream) -> None:
        key = (stream.exchange, stream.symbol)
        known = self._streams.get(key)
        if known is not None:
            del self._homes[known.home][key]
        self._streams[key] = stream
        self._homes.setdefault(stream.home, {})[key] = stream
        self._symbols.add(stream.symbol)

    def _bring_home(self, stream: Stream, tp: TopicPartition) -> None:
        """Enter the stream under the partition of its last row."""
        if stream.home != tp:
            key = (stream.exchange, stream.symbol)
            del self._homes[stream.home][key]
            stream.home = tp
            self._homes.setdefault(tp, {})[key] = stream

    def _events(self, runs: Runs, found: Sequence[Happened]) -> pa.Table:
        """As EVENTS, in the order of the rows."""
        singles = [(stream, at, change) for stream, at, change in found if isinstance(change, Change)]
        tables = [pa.Table.from_pylist([self._event(stream, runs.row(at), change) for stream, at, change in singles], schema=EVENTS)]
        places = [runs.at[[at for _, at, _ in singles]]]
        for stream, at, filled in found:
            if isinstance(filled, Filled):  # behind the singles, which give gaps their ids
                tables.append(self._events_of_many(stream, runs, at, filled))
                places.append(runs.at[at : at + filled.taken])
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places)))).combine_chunks()

    def _event(self, stream: Stream, row: Row, change: Change) -> dict[str, Any]:
        """As a row of EVENTS; an event that opens gives its id to the gap."""
        id = event_id(self._key_of(stream), change.kind, (change.first, change.last), (*row.tp, row.offset))
        if change.kind is Kind.OPENED and change.gap is not None:
            change.gap.id = id
        return {
            "event_id": id,
            "exchange": stream.exchange,
            "symbol": stream.symbol,
            "data_type": self._data_type,
            "kind": change.kind.value,
            "severity": severity_of(change.missing, self._small_rows),
            "first_sequence": change.first,
            "last_sequence": change.last,
            "missing": change.missing,
            "cause": change.cause.value,
            "timestamp": row.time_us,
            "previous_timestamp": change.previous.time_us,
            "topic": row.tp.topic,
            "partition": row.tp.partition,
            "offset": row.offset,
            "previous_offset": change.previous.offset,
            "gap_id": (change.gap.id or None) if change.gap is not None else None,
        }

    def _events_of_many(self, stream: Stream, runs: Runs, at: int, filled: Filled) -> pa.Table:
        """The same for rows that filled a gap one after the other; the gap has its id."""
        (gap, count, left, previous), row = filled, runs.row(at)
        alike = self._event(stream, row, Change(Kind.SHRUNK, gap.first, gap.last, 0, gap.cause, previous, gap))
        columns = {name: pa.repeat(pa.scalar(alike.get(name), EVENTS.field(name).type), count) for name in EVENTS.names}
        missing = [min(number, MOST) for number in range(left + count - 1, left - 1, -1)]
        kinds = [Kind.SHRUNK] * (count - 1) + [Kind.SHRUNK if left else Kind.FILLED]
        offsets = runs.offset[at : at + count].tolist()
        key, sequences = self._key_of(stream), (gap.first, gap.last)
        columns["event_id"] = pa.array([event_id(key, kind, sequences, (*row.tp, offset)) for kind, offset in zip(kinds, offsets, strict=True)])
        columns["kind"] = pa.array([kind.value for kind in kinds])
        columns["severity"] = pa.array([severity_of(number, self._small_rows) for number in missing])
        columns["missing"], columns["offset"] = pa.array(missing, pa.int64()), pa.array(offsets, pa.int64())
        columns["timestamp"] = pa.array(runs.time_us[at : at + count], TIMESTAMP)
        return pa.table(columns, schema=EVENTS)

    def _key_of(self, stream: Stream) -> tuple[str, str, str]:
        return stream.exchange, stream.symbol, self._data_type


def _filled(stream: Stream, row: Row, runs: Runs, run: Run, at: int, notes: PartitionNotes) -> Filled | None:
    """Rows from `at` on that fill a gap one after the other, if they are many; they are taken."""
    if run.last_row - at < MANY_ROWS or not stream.is_announced(notes.session(stream.symbol, row.offset)):
        return None
    return stream.fill_many(row, runs.time_us[at : min(run.last_row, at + MOST_ROWS)], at_least=MANY_ROWS)


def _moves_on(stream: Stream, row: Row, run: Run, notes: PartitionNotes) -> bool:
    """True if `row` and the rest of its run have each the expected number and begin no session nor belong to an ended one."""
    return (
        row.sequence == stream.head.sequence + 1
        and run.oldest_us >= stream.session.start_us
        and stream.is_announced(notes.session(stream.symbol, row.offset))
    )


def event_id(stream: tuple[str, str, str], kind: str, sequences: tuple[int, int], origin: tuple[str, int, int]) -> str:
    """Name of an event: hash of (exchange, symbol, data type), kind, range and (topic, partition, offset) of its row."""
    return hashlib.blake2b(msgpack.packb((*stream, str(kind), *sequences, *origin), buf_size=NAME_BYTES), digest_size=16).hexdigest()


def severity_of(missing: int, small_rows: int) -> str:
    """How bad it is that so many numbers are still missing."""
    return "small" if missing <= small_rows else "large"
