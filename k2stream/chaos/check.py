"""The verdict on one snapshot: conservation, every key once, and row by row what the reference says."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass

import pyarrow as pa

from k2stream.audit import Pinned, audit
from k2stream.chaos.reference import Reference
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Vector
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.fingerprint import comparable, quoted
from k2stream.records import TopicPartition
from k2stream.rows import TRADES
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.transport.reader import read_on

READ = "read_parquet($files, hive_partitioning = false)"

SHOWN = 5
"""How many of the rows that are wrong a sentence names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look at the tables found."""

    snapshot_id: int | None
    began: float
    """Monotonic seconds; the snapshot is not older."""
    seconds: float
    vector: Vector
    rows: int
    lost: int
    """Rows that the reference has and the table has not."""
    extra: int
    """Rows that the table has and the reference has not: duplicates, or rows that differ."""
    events: int
    """Gap events in the gaps table."""
    letters: int
    duplicates: int
    """Records that dedup must have dropped."""
    problems: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return not self.problems


def check(settings: Settings, reference: Reference, *, is_final: bool) -> Verdict:
    """Pin the head, read the log on, and compare; raises K2Error if something cannot be read.

    `is_final`: nothing is on its way any more, so the gaps table must hold every event.
    """
    began = time.monotonic()
    with (
        closing(TableReader.open_reader(settings, "trades")) as trades,
        closing(TableReader.open_reader(settings, "gaps")) as gaps,
        Engine.of(settings) as engine,
    ):
        head = trades.head()
        table = Pinned(head, trades.files(head.snapshot_id) if head.snapshot_id else [])
        gaps_snapshot = gaps.load().current_snapshot()
        gaps_files = gaps.files(gaps_snapshot.snapshot_id) if gaps_snapshot else []
        newest = trades.head().vector  # gaps was read after the head, so it may know of later windows
        letters = set(origins_of_letters(settings))
        reference.take(read_on(settings, reference.positions()))
        report = audit(
            table, engine, tolerance_us=settings.dedup_tolerance_ms * 1000, letters=lambda: letters, letters_dropped=lambda: letters_dropped(settings)
        )
        difference = compare_rows(engine, table.data_files, reference.rows(head.vector))
        events = engine.ask(f"SELECT {', '.join(map(quoted, EVENTS.names))} FROM {READ}", files=gaps_files) if gaps_files else EVENTS.empty_table()
    problems = (
        *report.problems,
        *difference.sentences(),
        *wrong_ledgers(reference, head.vector),
        *wrong_letters(reference, head.vector, letters),
        *wrong_events(reference, head.vector, newest, events, is_final=is_final),
    )
    counts = [entry.counts for entry in head.vector.values()]
    return Verdict(
        snapshot_id=head.snapshot_id,
        began=began,
        seconds=time.monotonic() - began,
        vector=head.vector,
        rows=sum(report.tables.values()),
        lost=difference.lost.num_rows,
        extra=difference.extra.num_rows,
        events=events.num_rows,
        letters=sum(c.dead_letters for c in counts),
        duplicates=sum(c.duplicates for c in counts),
        problems=problems,
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows of one side only: topic, partition, offset, trade id."""

    lost: pa.Table
    extra: pa.Table

    def sentences(self) -> Iterator[str]:
        for rows, what in ((self.lost, "are lost or differ in the table"), (self.extra, "stand in the table and should not")):
            if rows.num_rows:
                examples = ", ".join(f"{r['partition']}/{r['offset']} {r['trade_id']}" for r in rows.slice(0, SHOWN).to_pylist())
                yield f"{rows.num_rows} rows {what}, such as {examples}"


def compare_rows(engine: Engine, files: Sequence[TableFile], expected: pa.Table) -> Difference:
    """All columns of all rows, as sets that count: a row twice is one too many."""
    expected = expected.select(TRADES.names)
    if not files:
        return Difference(expected, expected.slice(0, 0))
    columns = ", ".join(f"{comparable(field)} AS {quoted(field.name)}" for field in TRADES)
    sums = f"SELECT count(*) AS rows, sum(hash(held)::HUGEINT)::VARCHAR AS checksum FROM (SELECT {columns} FROM {{}}) held"
    tables = {"expected": expected}
    if engine.ask(sums.format(READ), files=files) == engine.ask(sums.format("expected"), tables=tables):
        return Difference(expected.slice(0, 0), expected.slice(0, 0))
    differ = f"SELECT * FROM (SELECT {columns} FROM {{}} EXCEPT ALL SELECT {columns} FROM {{}}) ORDER BY partition, \"offset\""
    return Difference(
        engine.ask(differ.format("expected", READ), files=files, tables=tables), engine.ask(differ.format(READ, "expected"), files=files, tables=tables)
    )


def wrong_ledgers(reference: Reference, vector: Vector) -> Iterator[str]:
    """The ledger may add up and still be wrong: a duplicate counted as a row that was never there."""
    for tp, entry in sorted(vector.items()):
        expected = reference.lanes[tp].counts(entry.next)
        if astuple(entry.counts) != astuple(expected):
            yield f"{tp.topic}/{tp.partition}: the ledger says {entry.counts}, the log says {expected}"


def wrong_letters(reference: Reference, vector: Vector, letters: set[tuple[str, int, int]]) -> Iterator[str]:
    """Letters of records that are good, and bad records without one."""
    committed = {tp: entry.next for tp, entry in vector.items()}
    found = {(topic, p, offset) for topic, p, offset in letters if offset < committed.get(TopicPartition(topic, p), 0)}
    expected = reference.letters(vector)
    if missing := sorted(expected - found):
        yield f"{len(missing)} bad records have no dead letter, such as {missing[:SHOWN]}"
    if wrong := sorted(found - expected):
        yield f"{len(wrong)} good records have a dead letter, such as {wrong[:SHOWN]}"


def wrong_events(reference: Reference, vector: Vector, newest: Vector, events: pa.Table, *, is_final: bool) -> Iterator[str]:
    """The gaps table may lag behind, but what it holds is right and there once; at the end it holds all."""
    expected = {event["event_id"]: event for event in pa.Table.from_pylist(reference.events(newest), schema=EVENTS).to_pylist()}
    found = events.to_pylist()
    if repeated := len(found) - len({event["event_id"] for event in found}):
        yield f"{repeated} gap events stand twice"
    if wrong := [event for event in found if event != expected.get(event["event_id"])]:
        yield f"{len(wrong)} gap events are not as they must be, such as {wrong[0]}, expected {expected.get(wrong[0]['event_id'])}"
    missing = {event["event_id"] for event in reference.events(vector)} - {event["event_id"] for event in found}
    if is_final and missing:
        yield f"{len(missing)} gap events are missing, such as {expected[min(missing)]}"
