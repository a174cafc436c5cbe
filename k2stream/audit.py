"""`k2 audit`: the ledger of one pinned snapshot set against the table's own rows and the dead letter topics.

For every topic partition it asks, within `start <= offset < next` (design §9 and §13.13):

1. next - start = rows + duplicates + dead_letters + markers + holes, none of them negative;
2. the data files hold rows - retired rows, each of an offset of its own, and none at or above `next`;
3. no native id twice within the dedup tolerance (of instruments: no company of an exchange twice);
4. every dead letter has its letter, as long as its topic keeps it.

And of the snapshot: every data file can be read and holds as many rows as its manifest says. What does not hold
becomes a sentence that names the partition; a letter whose window never committed is *void*, which is worth a note only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from k2stream.lake.catalog import open_catalog
from k2stream.lake.offsets import Entry, Vector
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.query.recount import Recount, Repeats, faults_of_files, recount, repeated_companies, repeated_keys
from k2stream.records import TopicPartition
from k2stream.rows import NATIVE_IDS
from k2stream.settings import Settings
from k2stream.table_file import TableFile

MAIN = "trades"
"""The table that every lake has."""

AUDITED: Mapping[str, str] = {MAIN: "trades", "quotes": "quotes", "instruments": "reference_data"}
"""Tables of rows, and the data type of the topics that each is read from."""

Origin = tuple[str, int, int]
"""Topic, partition and offset of the record that a letter is about: the letter's key."""

Letters = Callable[[], Iterable[Origin]]
"""Reads the keys of all letters that the dead letter topics keep; the same key may come more than once."""

LettersDropped = Callable[[], int]
"""How many letters the topics' retention has taken (their first offsets, added up): so many may be missing."""


def nothing_dropped() -> int:
    """For topics that keep everything."""
    return 0


class Head(Protocol):
    """The snapshot that an audit pins."""

    @property
    def snapshot_id(self) -> int | None: ...
    @property
    def vector(self) -> Vector: ...


class AuditedTable(Protocol):
    """A table that can say what it holds."""

    def head(self) -> Head: ...
    def files(self, snapshot_id: int) -> Sequence[TableFile]: ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A table that stands still: what an audit asks is answered from one snapshot."""

    pinned: Head
    data_files: Sequence[TableFile]

    @classmethod
    def of(cls, table: AuditedTable) -> "Pinned":
        """As it is now; raises LakeError."""
        head = table.head()
        return cls(head, table.files(head.snapshot_id) if head.snapshot_id is not None else ())

    def head(self) -> Head:
        return self.pinned

    def files(self, snapshot_id: int) -> Sequence[TableFile]:
        return self.data_files


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted of one topic partition, apart from its ledger."""

    held: Recount
    repeats: Repeats | None
    letters: int | None
    """Different letters with an offset of `[start, next)`; None: nobody asked."""
    void: int
    """Letters at or above `next`."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found; balanced if there is no problem."""

    snapshot_id: int | None
    tables: Mapping[str, int]
    """Rows by table, as counted in its data files."""
    vector: Vector
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """True and harmless: void letters, letters that their topic dropped, rows from before an adoption."""

    @property
    def balanced(self) -> bool:
        """True if everything adds up."""
        return not self.problems

    def as_json(self) -> dict[str, object]:
        """What `k2 audit --json` prints, as plain values: the three keys that programs rely on, then three for people."""
        return {
            "balanced": self.balanced,
            "tables": dict(self.tables),
            "partitions": [
                {"topic": tp[0], "partition": tp[1], "start": entry.start, "next": entry.next, **asdict(entry.counts)}
                for tp, entry in sorted(self.vector.items())
            ],
            "snapshot_id": self.snapshot_id,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The same for a person: verdict, problems, notes, then one line a partition."""
        rows = ", ".join(f"{name} {count:,} rows" for name, count in self.tables.items())
        verdict = "balanced" if self.balanced else f"NOT balanced, {len(self.problems)} problems"
        return [
            f"{verdict}: {rows}, {len(self.vector)} partitions, snapshot {self.snapshot_id}",
            *(f"problem: {sentence}" for sentence in self.problems),
            *(f"note: {sentence}" for sentence in self.notes),
            *(ledger_line(tp, entry) for tp, entry in sorted(self.vector.items())),
        ]


def audit(
    table: AuditedTable,
    engine: Engine,
    *,
    tolerance_us: int,
    letters: Letters | None = None,
    letters_dropped: LettersDropped = nothing_dropped,
    name: str = "trades",
) -> AuditReport:
    """Pin the table's head and prove its ledger from its own rows.

    The letters are read after the head, and what was dropped is asked last: a window that commits meanwhile, or a
    segment that retention takes, never looks like a missing letter. Raises QueryError or LakeError if the table cannot
    be read at all; a data file that cannot is a problem.
    """
    head = table.head()
    files = list(table.files(head.snapshot_id)) if head.snapshot_id is not None else []
    faults = faults_of_files(engine, files)
    readable = [file for file in files if file.path not in faults.unreadable]
    held = recount(engine, readable, head.vector)
    repeats = _repeats(name, engine, readable, head.vector, tolerance_us)
    mail = Mail.sorted_by(head.vector, letters() if letters else None)
    problems, notes = [*faults.sentences], [*mail.strangers]
    for tp in sorted({*head.vector, *held}):
        evidence = Evidence(held.get(tp, Recount()), repeats.get(tp), mail.inside_of(tp), mail.void[tp])
        problems += problems_of(tp, head.vector.get(tp), evidence)
        notes += notes_of(tp, head.vector.get(tp), evidence)
    missing = missing_letters(head.vector, mail)
    (notes if not missing or sum(missing.values()) <= letters_dropped() else problems).extend(letter_sentences(missing, head.vector, mail))
    rows = sum(count.rows + count.beyond + count.before for count in held.values())
    return AuditReport(head.snapshot_id, {name: rows}, head.vector, tuple(problems), tuple(notes))


def audit_lake(settings: Settings, *, letters: Letters | None = None, letters_dropped: LettersDropped = nothing_dropped) -> AuditReport:
    """Audit the tables of rows of the lake that the settings name, as one report; raises LakeError if there are none.

    Only reads: safe beside a worker, whose next commits it does not see.
    """
    tolerance_us, tables = settings.dedup_tolerance_ms * 1000, dict[str, Pinned]()
    with ExitStack() as stack:
        catalog = stack.enter_context(closing(open_catalog(settings)))
        spill = stack.enter_context(TemporaryDirectory(prefix="k2-audit-"))
        engine = stack.enter_context(Engine.of(settings, spill=Path(spill)))
        for name in AUDITED:
            if name == MAIN or catalog.table_exists((settings.namespace, name)):
                tables[name] = Pinned.of(stack.enter_context(closing(TableReader.open_reader(settings, name))))
        kept = None if letters is None else list(letters())  # after every head, so that no ledger knows of a later letter
        reports = []
        for name, table in tables.items():
            mail = None if kept is None else [origin for origin in kept if _data_type_of(origin[0]) == AUDITED[name]]
            asked = None if mail is None else mail.copy
            reports.append(audit(table, engine, tolerance_us=tolerance_us, letters=asked, letters_dropped=letters_dropped, name=name))
    return together([r for r in reports if r.snapshot_id is not None] or reports)


def together(reports: Sequence[AuditReport]) -> AuditReport:
    """Reports of several tables as one; the snapshot is that of the first."""
    first, *others = reports
    return AuditReport(
        first.snapshot_id,
        {name: rows for r in reports for name, rows in r.tables.items()},
        {tp: entry for r in reports for tp, entry in r.vector.items()},
        tuple(sentence for r in reports for sentence in r.problems),
        (*(sentence for r in reports for sentence in r.notes), *(f"{', '.join(r.tables)}: snapshot {r.snapshot_id}" for r in others)),
    )


def _data_type_of(topic: str) -> str:
    """Of a market topic; any other counts as trades', whose audit says that nobody knows it."""
    parts = topic.split(".")
    return parts[2] if len(parts) == 4 and parts[2] in AUDITED.values() else AUDITED[MAIN]


def _repeats(name: str, engine: Engine, files: Sequence[TableFile], vector: Vector, tolerance_us: int) -> Mapping[TopicPartition, Repeats]:
    """Rows that stand twice: for instruments by company, for others by the venue's own id."""
    if name == "instruments":
        return repeated_companies(engine, files, vector)
    return repeated_keys(engine, files, vector, tolerance_us=tolerance_us, native_id=NATIVE_IDS[name])


@dataclass(frozen=True, slots=True)
class Mail:
    """The letters of the dead letter topics, sorted by what the vector says of their origin."""

    inside: Counter[TopicPartition] | None
    """Different letters of `[start, next)`; None: nobody asked."""
    void: Counter[TopicPartition]
    """Different letters at or above `next`: their window never committed, the record will be read again."""
    strangers: tuple[str, ...]
    """A sentence for each partition with letters and no entry."""

    @classmethod
    def sorted_by(cls, vector: Vector, origins: Iterable[Origin] | None) -> "Mail":
        if origins is None:
            return cls(None, Counter(), ())
        inside: Counter[TopicPartition] = Counter()
        void: Counter[TopicPartition] = Counter()
        strange: Counter[TopicPartition] = Counter()
        for topic, partition, offset in set(origins):
            tp = TopicPartition(topic, partition)
            entry = vector.get(tp)
            if entry is None:
                strange[tp] += 1
            elif offset >= entry.next:
                void[tp] += 1
            elif offset >= entry.start:
                inside[tp] += 1
        sentences = tuple(f"{named(tp)}: {count} void letters; the table has no entry for it" for tp, count in sorted(strange.items()))
        return cls(inside, void, sentences)

    def inside_of(self, tp: TopicPartition) -> int | None:
        return None if self.inside is None else self.inside[tp]


def problems_of(tp: TopicPartition, entry: Entry | None, evidence: Evidence) -> Iterator[str]:
    """A sentence for each thing of one partition that does not add up."""
    held = evidence.held
    if entry is None:
        yield f"{named(tp)}: the table holds {held.beyond} rows of it and the vector has no entry for it"
        return
    counts, expected = entry.counts, entry.counts.rows - entry.counts.retired
    if entry.next - entry.start != counts.offsets:
        yield (
            f"{named(tp)}: next - start is {entry.next - entry.start}, but rows {counts.rows} + duplicates {counts.duplicates} "
            f"+ dead letters {counts.dead_letters} + markers {counts.markers} + holes {counts.holes} is {counts.offsets}"
        )
    negative = [name for name, value in asdict(counts).items() if value < 0]
    if negative:
        yield f"{named(tp)}: {', '.join(negative)} of its ledger is below zero"
    if held.rows != expected:
        yield f"{named(tp)}: the ledger says {counts.rows} rows less {counts.retired} retired, the table holds {held.rows}"
    if held.offsets != held.rows:
        yield f"{named(tp)}: {held.rows} rows come from {held.offsets} offsets; some record became more than one row"
    if held.beyond:
        yield f"{named(tp)}: {held.beyond} rows lie at or above its next offset {entry.next}"
    if evidence.repeats:
        yield f"{named(tp)}: {evidence.repeats.rows} rows share their native id with another, such as {evidence.repeats.example}"


def notes_of(tp: TopicPartition, entry: Entry | None, evidence: Evidence) -> Iterator[str]:
    """A sentence for each thing of one partition that a reader may wonder about."""
    if evidence.held.before:
        yield f"{named(tp)}: {evidence.held.before} rows lie below its start; they are from before an adoption and not counted"
    surplus = max(0, (evidence.letters or 0) - (entry.counts.dead_letters if entry else 0))
    if evidence.void + surplus:
        yield f"{named(tp)}: {evidence.void + surplus} void letters; their window never committed"


def missing_letters(vector: Vector, mail: Mail) -> Mapping[TopicPartition, int]:
    """Dead letters of the ledger without their letter, by partition."""
    if mail.inside is None:
        return {}
    short = {tp: entry.counts.dead_letters - mail.inside[tp] for tp, entry in sorted(vector.items())}
    return {tp: count for tp, count in short.items() if count > 0}


def letter_sentences(missing: Mapping[TopicPartition, int], vector: Vector, mail: Mail) -> Iterator[str]:
    """What is said of missing letters, be it a problem or, after retention, a note."""
    for tp in missing:
        yield f"{named(tp)}: the ledger says {vector[tp].counts.dead_letters} dead letters, their topic keeps {mail.inside_of(tp)}"


def ledger_line(tp: TopicPartition, entry: Entry) -> str:
    """One partition's ledger on one line."""
    counts = ", ".join(f"{name} {value:,}" for name, value in asdict(entry.counts).items())
    return f"{named(tp)}: [{entry.start:,}, {entry.next:,}) {counts}"


def named(tp: TopicPartition) -> str:
    """A partition as people write it."""
    return f"{tp[0]}/{tp[1]}"
