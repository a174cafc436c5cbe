"""Dead letters back into their topics: each attempt published once, at a rate, whatever dies on the way.

A replay writes to the trail where the log ended before it published anything, then, as it goes, where each record now stands. One that
was killed left records that the trail does not know: they lie behind those ends and carry `first_origin` and `attempt` in
their headers, so the next replay reads on from there before it chooses its letters. A record that went out twice all the same would be a
duplicate to the worker: the table has one row.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import zip_longest

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from k2stream.clock import Clock
from k2stream.deadletter.envelope import ATTEMPT_HEADER, FIRST_ORIGIN_HEADER, Letter
from k2stream.deadletter.standing import DeadLetters
from k2stream.deadletter.trail import Act, Place, Sent, Writer, began, ended, ends_of, published
from k2stream.query.letters import Selection, State
from k2stream.records import Headers, Record, TopicPartition
from k2stream.transport.bounded import bounded
from k2stream.transport.ends import begins_of
from k2stream.transport.reader import read_on
from k2stream.transport.sink import LogSink, Outgoing

log = structlog.get_logger(__name__)

FETCHED_LETTERS = 1_000
"""At most twice so many letters are in memory with their bytes."""
CHUNK_LETTERS = 500
CHUNKS_PER_SECOND = 10
"""At a low rate records go out in chunks this often, so that a second never gets more than its share."""
HASTE = 1.05
WRITTEN_EVERY_SECONDS = 1.0
"""The trail is written so often; what a kill leaves out of it is found again in the log."""
POLL_SECONDS = 1.0
"""Between two looks for new heads."""


@dataclass(slots=True)
class Replayed:
    """What one replay did."""

    replay_id: str
    published: int = 0
    recovered: int = 0
    """Records of replays that were cut off, found in the log."""
    seconds: float = 0.0
    """Of publishing."""
    outcomes: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    """Published, and no commit has come to them yet."""
    homeless: int = 0
    """Letters whose topic, or partition of it, is no longer there."""


async def replay(
    letters: DeadLetters,
    sink: LogSink,
    selection: Selection,
    *,
    rate: float | None,
    wait_seconds: float,
    on_step: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """Publish every open letter of `selection` once, `rate` a second at most (None: no bound), then wait for what becomes of them.

    Raises K2Error; what was published until then is found by the next replay. `on_step` hears each step; crash tests die there.
    """
    by, done = letters.writer(), Replayed("")
    done.replay_id = by.replay_id
    done.recovered = await asyncio.to_thread(recover, letters, by)
    await asyncio.to_thread(letters.settle)
    found, origins = await asyncio.to_thread(letters.chosen, open_ones(selection)), list[str]()
    if found is not None and found.num_rows:
        places, origins = _places(found, await sink.topics())
        done.homeless = found.num_rows - len(origins)
    if origins:
        ends = {place: (await sink.bounds(TopicPartition(*place)))[1] for place in places}
        await asyncio.to_thread(letters.write, [began(by, letters.clock.now_us(), selection=selection.words(), ends=ends)])
        on_step("replay.began")
        await _publish(letters, sink, by, origins, rate, done, on_step)
        on_step("replay.published")
        await asyncio.to_thread(letters.write, [ended(by, letters.clock.now_us())])
    await _wait(letters, done, wait_seconds)
    return done


def _places(found: pa.Table, topics: Mapping[str, int]) -> tuple[set[Place], list[str]]:
    """The partitions that the chosen letters go back to, and the letters that have one; `topics` is those that exist, with their partitions."""
    pairs = zip(found["topic"].to_pylist(), found["partition"].to_pylist(), strict=True)
    placed = [(place, origin) for place, origin in zip(pairs, found["origin"].to_pylist(), strict=True) if place[1] < topics.get(place[0], 0)]
    return {place for place, _ in placed}, [origin for _, origin in placed]


def open_ones(selection: Selection) -> Selection:
    """The same, but only letters that may be replayed."""
    return Selection(
        selection.reasons, selection.topic, selection.symbols, selection.start, selection.end, selection.origins, (State.OPEN,), selection.limit
    )


async def _publish(
    letters: DeadLetters, sink: LogSink, by: Writer, origins: Sequence[str], rate: float | None, done: Replayed, on_step: Callable[[str], None]
) -> None:
    edits = await asyncio.to_thread(letters.edits)
    pace, unwritten = Pace(rate, letters.clock), list[Sent]()
    written_at = letters.clock.monotonic()
    async with aclosing(_fetched(letters, origins)) as fetched:
        async for whole in fetched:
            for chunk in pace.chunks(whole):
                await asyncio.sleep(pace.wait_seconds(len(chunk)))
                unwritten += await _send(sink, chunk, edits, letters.clock)
                done.published += len(chunk)
                on_step("replay.sent")
                if letters.clock.monotonic() - written_at >= WRITTEN_EVERY_SECONDS:
                    await _write(letters, by, unwritten)
                    on_step("replay.written")
                    written_at = letters.clock.monotonic()
    done.seconds = pace.elapsed_seconds()
    await _write(letters, by, unwritten)


async def _fetched(letters: DeadLetters, origins: Sequence[str]) -> AsyncGenerator[list[Letter], None]:
    """Letters with their bytes, in order; while some are published the next are read."""
    parts = [origins[first : first + FETCHED_LETTERS] for first in range(0, len(origins), FETCHED_LETTERS)]
    ahead: asyncio.Task[list[Letter]] | None = None
    try:
        for here, following in zip_longest(parts, parts[1:]):
            whole = await (asyncio.shield(ahead) if ahead else asyncio.to_thread(letters.whole, here))
            ahead = asyncio.create_task(asyncio.to_thread(letters.whole, following)) if following else None
            yield whole
    finally:
        if ahead is not None:
            await asyncio.wait({ahead})  # a thread cannot be told to stop, and what it reads with is closed next


async def _write(letters: DeadLetters, by: Writer, unwritten: list[Sent]) -> None:
    rows = [published(by, letters.clock.now_us(), sent) for sent in unwritten]
    await asyncio.to_thread(letters.write, rows)
    unwritten.clear()


async def _send(sink: LogSink, chunk: Sequence[Letter], edits: dict[str, tuple[bytes | None, bytes | None]], clock: Clock) -> list[Sent]:
    """Append records to the partitions that their letters came from; where each stands now."""
    by_place: defaultdict[Place, list[tuple[Letter, Outgoing]]] = defaultdict(list)
    for letter in chunk:
        by_place[letter.topic, letter.partition].append((letter, outgoing(letter, edits.get(letter.first_origin), clock.now_us() // 1000)))
    sent: list[Sent] = []
    for (topic, partition), pairs in by_place.items():
        for few in bounded(pairs, _size_bytes):
            base = await sink.send(topic, partition, [record for _, record in few])
            sent += [
                Sent(letter.first_origin, letter.attempt, topic, partition, base + i, is_marker=record.value is None)
                for i, (letter, record) in enumerate(few)
            ]
    return sent


def outgoing(letter: Letter, edit: tuple[bytes | None, bytes | None] | None, now_ms: int) -> Outgoing:
    """The record of a letter's next life, as its producer wrote it or as somebody mended it.

    Its time is now: a topic's retention goes by it, and would take an old one away before it is read.
    """
    key, value = edit or (letter.key, letter.value)
    ours: Headers = ((FIRST_ORIGIN_HEADER, letter.first_origin.encode()), (ATTEMPT_HEADER, str(letter.attempt).encode()))
    kept = tuple((name, text) for name, text in letter.headers if name not in (FIRST_ORIGIN_HEADER, ATTEMPT_HEADER))
    return Outgoing(key, value, now_ms, kept + ours)


def _size_bytes(pair: tuple[Letter, Outgoing]) -> int:
    return len(pair[1].value or b"")


class Pace:
    """Chunks that keep a rate: the n-th record goes out no earlier than n / rate seconds after the first.

    What a slow log or a long read held up is caught up at HASTE times the rate, never in a burst.
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._started, self._sent, self._soonest = clock.monotonic(), 0, 0.0
        self._size = CHUNK_LETTERS if rate is None else max(1, min(CHUNK_LETTERS, int(rate / CHUNKS_PER_SECOND)))

    def chunks(self, letters: Sequence[Letter]) -> Iterator[Sequence[Letter]]:
        for first in range(0, len(letters), self._size):
            yield letters[first : first + self._size]

    def wait_seconds(self, count: int) -> float:
        """How long to wait before `count` more may go; counts them as gone."""
        now = self._clock.monotonic()
        if not self._rate:
            return 0.0
        if not self._sent:
            self._started = now
        due = max(now, self._started + self._sent / self._rate, self._soonest)
        self._soonest = due + count / (HASTE * self._rate)
        self._sent += count
        return due - now

    def elapsed_seconds(self) -> float:
        return self._clock.monotonic() - self._started


async def _wait(letters: DeadLetters, done: Replayed, seconds: float) -> None:
    """Until every published record has its outcome, or the time is over; what is not known then the next `k2 dlq` finds out."""
    until, seen = letters.clock.monotonic() + seconds, None
    while True:
        heads = await asyncio.to_thread(letters.heads)  # before it is settled: a commit meanwhile is another head
        if heads != seen:
            await asyncio.to_thread(letters.settle)
            _count(await asyncio.to_thread(letters.trail), done)
            seen = heads
        left_seconds = until - letters.clock.monotonic()
        if not done.waiting or left_seconds <= 0:
            return
        await asyncio.sleep(min(POLL_SECONDS, left_seconds))


def _count(trail: pa.Table, done: Replayed) -> None:
    """What became of the records of this replay, into `done`."""
    rows = trail.select(["replay_id", "act", "topic", "partition", "offset", "outcome"])
    mine = _by_place(rows.filter(pc.and_(pc.equal(rows["act"], Act.PUBLISHED.value), pc.equal(rows["replay_id"], done.replay_id))))
    told = _by_place(rows.filter(pc.equal(rows["act"], Act.OUTCOME.value)))
    done.outcomes = dict(Counter(told[place] for place in mine.keys() & told.keys()))
    done.waiting = len(mine.keys() - told.keys())


def _by_place(rows: pa.Table) -> dict[tuple[str, int, int], str]:
    """Outcome by topic, partition and offset."""
    places = zip(*(rows[name].to_pylist() for name in ("topic", "partition", "offset")), strict=True)
    return dict(zip(places, rows["outcome"].to_pylist(), strict=True))


def recover(letters: DeadLetters, by: Writer) -> int:
    """Write down what replays that were cut off published and did not say; how many records that were. Blocks."""
    trail = letters.trail()
    positions, cut_off, known = unwritten_from(trail.to_pylist())
    if not cut_off:
        return 0
    begins = begins_of(letters.settings)  # what retention has taken, or was deleted, nobody can find again
    kept = {tp: max(position, begins[tp]) for tp, position in positions.items() if tp in begins}
    records = read_on(letters.settings, kept) if kept else ()
    found = [sent for record in records if (sent := sent_of(record)) and (sent.topic, sent.partition, sent.offset) not in known]
    now_us = letters.clock.now_us()
    ends = [ended(Writer(replay_id, by.who), now_us, "cut off") for replay_id in sorted(cut_off)]
    letters.write([*(published(by, now_us, sent) for sent in found), *ends])
    log.info("replay.recovered", replays=len(cut_off), records=len(found))
    return len(found)


def unwritten_from(trail: Sequence[dict[str, object]]) -> tuple[dict[TopicPartition, int], set[str], set[tuple[str, int, int]]]:
    """Where to read on from, the replays that never ended, and what is known already.

    What a replay left out lies behind everything of it that the trail has, for the trail is written in order.
    """
    open_ones: dict[str, dict[Place, int]] = {}
    known: set[tuple[str, int, int]] = set()
    for row in trail:
        act, replay_id = row["act"], str(row["replay_id"])
        if act == Act.BEGAN:
            open_ones[replay_id] = ends_of(str(row["note"]))
        elif act == Act.ENDED:
            open_ones.pop(replay_id, None)
        elif act == Act.PUBLISHED:
            topic, partition, offset = str(row["topic"]), int(str(row["partition"])), int(str(row["offset"]))
            known.add((topic, partition, offset))
            if replay_id in open_ones:
                ends = open_ones[replay_id]
                ends[topic, partition] = max(ends.get((topic, partition), 0), offset + 1)
    positions: dict[TopicPartition, int] = {}
    for ends in open_ones.values():
        for place, end in ends.items():
            tp = TopicPartition(*place)
            positions[tp] = min(positions.get(tp, end), end)
    return positions, set(open_ones), known


def sent_of(record: Record) -> Sent | None:
    """What a record's headers say of its earlier life; None if it has none."""
    headers = dict(record.headers)
    origin, attempt = headers.get(FIRST_ORIGIN_HEADER), headers.get(ATTEMPT_HEADER, b"")
    if origin is None or not attempt.isdigit():
        return None
    first_origin = origin.decode(errors="replace")
    return Sent(first_origin, int(attempt), record.topic, record.partition, record.offset, is_marker=record.value is None)
