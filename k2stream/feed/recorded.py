"""The shipped recordings as ordered streams: every ASX symbol and Binance, with the markers of their sessions.

At least once: a run that is cut short and started again publishes everything again, in the same order with the same ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from k2stream.clock import Clock, SystemClock
from k2stream.feed import asx, binance
from k2stream.feed.publisher import SESSION_START, FeedMarker, Progress, Publisher, publishing
from k2stream.feed.recording import MessageIds, Recording
from k2stream.topics import KINDS
from k2stream.transport.sink import LogSink, Outgoing


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `first` to `stop - 1` of the script's recording."""

    first: int
    stop: int


Step = Rows | FeedMarker | Outgoing
"""What is published next: rows, a marker, or a record that is made already."""


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that is published to one topic, in order."""

    recording: Recording
    steps: tuple[Step, ...]

    @property
    def records(self) -> int:
        """Records but markers that it publishes."""
        return sum(s.stop - s.first if isinstance(s, Rows) else isinstance(s, Outgoing) for s in self.steps)


@dataclass(frozen=True, slots=True)
class Published:
    """What a run put into one topic."""

    topic: str
    records: int
    markers: int


def trades(*, ids: MessageIds, now_us: int, rows: int | None = None) -> list[Recording]:
    """The shipped trades: ASX, all symbols merged by time, and Binance; or the first `rows` of them, shared out in proportion."""
    whole = [merged([asx.trades(s, ids=ids, now_us=now_us) for s in asx.COMPANIES]), binance.trades(ids=ids, now_us=now_us)]
    return limited(whole, rows)


def quotes(*, ids: MessageIds, now_us: int, rows: int | None = None) -> list[Recording]:
    """The shipped quotes: ASX, all symbols merged by time."""
    return limited([merged([asx.quotes(s, ids=ids, now_us=now_us) for s in asx.COMPANIES])], rows)


def instruments(*, ids: MessageIds, now_us: int, rows: int | None = None) -> list[Recording]:
    """The shipped reference data: the four companies of the ASX recordings."""
    return limited([asx.instruments(ids=ids, now_us=now_us)], rows)


def limited(whole: list[Recording], rows: int | None) -> list[Recording]:
    """The first `rows` rows of all recordings together, shared out in proportion."""
    total = sum(r.rows.num_rows for r in whole)
    if rows is None or rows >= total:
        return whole
    shares = [rows * r.rows.num_rows // total for r in whole[1:]]
    return [r.head(share) for r, share in zip(whole, [rows - sum(shares), *shares], strict=True)]


def merged(parts: Sequence[Recording]) -> Recording:
    """Recordings of one topic as one, by event time; rows of each keep their order, for each must ascend in time."""
    # Dictionaries of maps cannot be unified, so each part's are written out first.
    rows = pa.concat_tables([_plain(p.rows) for p in parts]).combine_chunks()
    order = np.argsort(rows["timestamp"].cast(pa.int64()).to_numpy(), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    starts = np.cumsum([0, *(p.rows.num_rows for p in parts)])
    sessions = [replace(s, first_row=int(place[start + s.first_row])) for p, start in zip(parts, starts, strict=False) for s in p.sessions]
    return replace(parts[0], rows=rows.take(pa.array(order)), sessions=tuple(sorted(sessions, key=lambda s: s.first_row)))


def _plain(rows: pa.Table) -> pa.Table:
    columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in rows.columns]
    return pa.table([c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in columns], names=rows.column_names)


def script(recording: Recording) -> Script:
    """All rows, and before each session's first row a marker; sessions without a name are not announced."""
    return Script(recording, tuple(_steps(recording)))


def _steps(recording: Recording) -> Iterator[Step]:
    at = 0
    for session in recording.sessions:
        if session.first_row > at:
            yield Rows(at, session.first_row)
            at = session.first_row
        if session.name:
            yield FeedMarker(session.symbol, SESSION_START, session.name, session.time_us)
    if recording.rows.num_rows > at:
        yield Rows(at, recording.rows.num_rows)


async def play(
    sink: LogSink, scripts: Sequence[Script], *, schema_ids: Mapping[str, int], clock: Clock | None = None, progress: Progress | None = None
) -> list[Published]:
    """Publish scripts one after the other to their topics, which must exist; `schema_ids` by topic.

    Raises TransportError. What a script before the failing one published is durable, and of that one each partition's beginning.
    """
    published = []
    for each in scripts:
        topic, schema = each.recording.topic, KINDS[each.recording.data_type].schema
        async with publishing(sink, topic, schema=schema, schema_id=schema_ids[topic], clock=clock or SystemClock(), progress=progress) as publisher:
            for step in each.steps:
                await _publish(publisher, each.recording, step)
        published.append(Published(topic, each.records, sum(isinstance(s, FeedMarker) for s in each.steps)))
    return published


async def _publish(publisher: Publisher, recording: Recording, step: Step) -> None:
    match step:
        case Rows():
            await publisher.rows(recording.rows.slice(step.first, step.stop - step.first))
        case FeedMarker():
            await publisher.marker(step)
        case Outgoing():
            await publisher.records([step])
