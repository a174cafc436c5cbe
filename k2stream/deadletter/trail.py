"""What was done with dead letters, by whom, and what became of each: rows of the table `replays`, of which none is ever changed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from k2stream.lake.declaration import TableDeclaration
from k2stream.rows import TIMESTAMP


class Act(StrEnum):
    """What one row of the trail says."""

    BEGAN = "began"
    """A replay: with its selection, and where the log ended before it wrote anything."""
    PUBLISHED = "published"
    """A letter's record stands in the log again, at this origin."""
    OUTCOME = "outcome"
    """What became of it."""
    ENDED = "ended"
    """Everything that the replay published is in the trail."""
    EDITED = "edited"
    """A letter's key and value were mended; the letter itself is as it was."""
    PARKED = "parked"
    RELEASED = "released"
    """Parked no more."""


class Outcome(StrEnum):
    """What became of a replayed record."""

    ROW = "row"
    DUPLICATE = "duplicate"
    """The table has a row of that trade already."""
    DEAD = "dead"
    """It is a letter again, with an attempt more."""
    MARKER = "marker"


REPLAYS_SCHEMA = pa.schema(
    [
        pa.field("replay_id", pa.string(), nullable=False),
        pa.field("written_at", TIMESTAMP, nullable=False),
        pa.field("who", pa.string(), nullable=False),
        pa.field("act", pa.string(), nullable=False),
        pa.field("first_origin", pa.string()),
        pa.field("attempt", pa.int32()),
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("outcome", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("note", pa.string()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
"""`attempt` is that of the letter that was replayed; `note` is the selection of a replay that began, and a person's word elsewhere."""

REPLAYS = TableDeclaration(
    name="replays",
    schema=REPLAYS_SCHEMA,
    day_of=None,
    partition_by=(),
    sort_by=("written_at",),
    bounds=("replay_id", "written_at", "act", "first_origin"),
    unique=("first_origin", "value"),
)

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes a trail, and of which replay."""

    replay_id: str
    who: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A letter's record in the log again."""

    first_origin: str
    attempt: int
    topic: str
    partition: int
    offset: int
    is_marker: bool = False
    """True if it has no value: then it cannot become a row."""


def trail_rows(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows of REPLAYS_SCHEMA; what a mapping leaves out is null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=REPLAYS_SCHEMA)


def began(by: Writer, now_us: int, *, selection: str, ends: Mapping[Place, int]) -> dict[str, object]:
    """The first row of a replay; `ends` is where the log ended, for each partition that it may write to."""
    note = json.dumps({"selection": selection, "ends": [[topic, partition, end] for (topic, partition), end in sorted(ends.items())]})
    return {**_by(by, now_us, Act.BEGAN), "note": note}


def ends_of(note: str) -> dict[Place, int]:
    """The log's ends that `began` wrote down."""
    return {(topic, partition): end for topic, partition, end in json.loads(note)["ends"]}


def published(by: Writer, now_us: int, sent: Sent) -> dict[str, object]:
    where = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
    return {**_by(by, now_us, Act.PUBLISHED), "first_origin": sent.first_origin, "attempt": sent.attempt, **where, "note": "marker" if sent.is_marker else None}


def outcome(by: Writer, now_us: int, sent: Sent, came: Outcome, reason: str | None) -> dict[str, object]:
    return {**published(by, now_us, sent), "act": Act.OUTCOME.value, "outcome": came.value, "reason": reason, "note": None}


def ended(by: Writer, now_us: int, note: str | None = None) -> dict[str, object]:
    return {**_by(by, now_us, Act.ENDED), "note": note}


def word(by: Writer, now_us: int, act: Act, first_origin: str, **more: object) -> dict[str, object]:
    """A person's act on one letter: parked, released, edited."""
    return {**_by(by, now_us, act), "first_origin": first_origin, **more}


def _by(by: Writer, now_us: int, act: Act) -> dict[str, object]:
    return {"replay_id": by.replay_id, "written_at": now_us, "who": by.who, "act": act.value}
