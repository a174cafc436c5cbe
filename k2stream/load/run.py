"""`k2 load`: a file's rows into a topic, each once however often the loading is killed.

At least once into the log: what the progress file says is durable, and after a crash the rest of a chunk is published again with the same
ids, so that dedup makes one row of both. Where the file brings no ids, one is made of its content and the row's number: the same file gives
the same ids wherever it lies, two equal rows are two trades, and a file that was changed gives other ids to all its rows, so it is refused.

Steps for crash tests: `load.published`, `load.saved`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from k2stream.address import without_password
from k2stream.clock import SystemClock
from k2stream.crash import on_step_of
from k2stream.deadletter.envelope import Letter, letter_of_line
from k2stream.deadletter.keep import keep_letters
from k2stream.decode.registry import open_registry
from k2stream.errors import LoadError
from k2stream.feed.avro import encode
from k2stream.feed.publisher import Publisher, publishing
from k2stream.load.chunk import Chunk, RowFile
from k2stream.load.csv_file import CsvFile
from k2stream.load.letters import write_letters
from k2stream.load.mapping import FieldMapping
from k2stream.load.parquet_file import ParquetFile
from k2stream.load.progress import Progress, ProgressOf, fingerprint_of, renamed
from k2stream.load.rejects import RejectFile, rejects_to
from k2stream.load.rows import Converted, Target, convert, require_columns
from k2stream.playback import prepare_topic
from k2stream.settings import Settings
from k2stream.topics import KINDS, TopicName
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink, Outgoing
from k2stream.validate import Limits

log = structlog.get_logger(__name__)

SLICE_ROWS = 8192
"""Rows that are encoded at once."""
EXAMPLES = 3
"""So many rejects are told at the end."""
ENCODED_SCHEMA_ID_UNKNOWN = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be loaded, and how."""

    path: Path
    mapping: FieldMapping
    topic: TopicName
    rate: float = 0.0
    """Rows a second at most; 0: as fast as the log takes them."""
    dry_run: bool = False
    again: bool = False
    """From the first row, whatever was loaded before."""
    rejects: Path | None = None
    """Where rejected rows are written too."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run."""

    file: str
    fingerprint: str
    topic: str
    ids: str
    """"mapped", "derived" (of the file's content and the row's number), or "none" where the data type has none."""
    rows: int
    """Rows of the file that this run read."""
    resumed_at: int
    """Rows that earlier runs had done."""
    published: int
    rejected: int
    letters: str
    """Where the rejected rows lie as dead letters."""
    seconds: float
    is_dry_run: bool
    examples: tuple[str, ...]
    """The first rejects: line and reason."""

    def as_json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        verb = "would be published" if self.is_dry_run else "published"
        if self.resumed_at and not self.rows:
            return [f"{self.file}: all {self.resumed_at:,} rows were loaded into {self.topic} before; `--again` publishes them once more, with the same ids."]
        on = f", after {self.resumed_at:,} of earlier runs" if self.resumed_at else ""
        speed = f", {self.rows / self.seconds:,.0f} a second" if self.seconds else ""
        lines = [f"{self.file}: {self.rows:,} rows{on}: {self.published:,} {verb} to {self.topic}, {self.rejected:,} rejected{speed}"]
        if self.ids == "derived":
            lines.append(f"Ids are made of the file's content ({self.fingerprint[:16]}) and the row's number, for the mapping names none.")
        if self.rejected:
            lines.append(f"Rejected rows {'would be' if self.is_dry_run else 'are'} dead letters in {self.letters}, by file and line; the first:")
            lines += [f"  {example}" for example in self.examples]
        return lines


@dataclass(slots=True)
class Told:
    """Who wants to know how far it is."""

    size: Callable[[int], None]
    """What will be counted up to."""
    done: Callable[[int], None]


def load_file(settings: Settings, wanted: Wanted, told: Told) -> Summary:
    """Load a file, or what earlier runs left of it. Raises LoadError, TransportError, RegistryError, LakeError; running it again goes on from there."""
    return _Load(settings, wanted, told).run()


def open_rows(path: Path, mapping: FieldMapping, *, wanted: Sequence[str] | None = None) -> RowFile:
    """The file as rows; by its name Parquet, else CSV. Raises LoadError."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return ParquetFile(path, wanted=wanted)
    return CsvFile(path, mapping.form, wanted=wanted)


class _Load:
    """One run."""

    def __init__(self, settings: Settings, wanted: Wanted, told: Told) -> None:
        self._settings, self._wanted, self._told = settings, wanted, told
        self._path = str(wanted.path.absolute())
        self._on_step = on_step_of(settings.crash_at)
        self._began = time.monotonic()
        self._examples: list[str] = []
        self._rejects: RejectFile | None = None

    def run(self) -> Summary:
        wanted, settings = self._wanted, self._settings
        with closing(open_rows(wanted.path, wanted.mapping, wanted=wanted.mapping.columns)) as file:
            require_columns(wanted.mapping, file.column_names, str(wanted.path))
            self._before = self._stamp()
            limits = Limits(max_ahead_us=settings.max_ahead_ms * 1000, max_age_us=settings.max_age_ms * 1000)
            self._target = Target(wanted.topic, fingerprint_of(wanted.path), SystemClock().now_us(), limits)
            self._kept = ProgressOf(settings.home_path("load"), self._target.fingerprint, str(wanted.topic))
            self._told.size(file.size)
            with rejects_to(wanted.rejects) as self._rejects:
                if wanted.dry_run:
                    return self._tried(file)
                with self._kept.file.held():
                    return asyncio.run(self._load(file))

    # --- where it stands --------------------------------------------------------------------------------------

    def _stamp(self) -> tuple[int, int]:
        found = self._wanted.path.stat()
        return found.st_size, found.st_mtime_ns

    def _require_unchanged(self) -> None:
        if self._stamp() != self._before:
            raise LoadError(f"{self._path} was changed while it was loaded. What was published stays; load it again once nobody writes to it.")

    def _start(self) -> Progress:
        """Where this run begins; raises LoadError where it would give the same trades other ids, or other trades the same ids."""
        wanted = self._wanted
        fresh = Progress(self._path, str(wanted.topic), without_password(self._settings.broker), wanted.mapping.digest())
        if wanted.again:
            return fresh
        saved = self._kept.load()
        if saved is not None and saved.broker == fresh.broker:
            if saved.mapping != fresh.mapping and saved.place.row:
                raise LoadError(
                    f"{self._path}: {saved.place.row:,} rows of it were loaded into {saved.topic} by another mapping. Published again they keep their "
                    "ids, so workers take them for duplicates and the rows in the table stay as they are. `--again` publishes them all the same; "
                    "to replace rows, load into a new exchange or drop the table first."
                )
            return renamed(saved, self._path)
        other = None if wanted.mapping.has_ids or self._ids == "none" else self._kept.of_other_content(self._path, str(wanted.topic))
        if other is not None and other.place.row and other.broker == fresh.broker:
            raise LoadError(
                f"{self._path} was changed since {other.place.row:,} of its rows were loaded into {other.topic}, and the mapping names no id, so all "
                "rows would get new ids and those come twice. Load a file of the new rows alone, map an id, or say `--again` if every row is new."
            )
        return fresh

    @property
    def _ids(self) -> str:
        if self._wanted.mapping.data_type == "reference_data":
            return "none"
        return "mapped" if self._wanted.mapping.has_ids else "derived"

    def _summary(self, start: Progress, end: Progress) -> Summary:
        return Summary(
            str(self._wanted.path),
            self._target.fingerprint,
            str(self._wanted.topic),
            self._ids,
            end.place.row - start.place.row,
            start.place.row,
            end.published - start.published,
            end.rejected - start.rejected,
            self._wanted.topic.letters,
            round(time.monotonic() - self._began, 3),
            self._wanted.dry_run,
            tuple(self._examples),
        )

    # --- rows -------------------------------------------------------------------------------------------------

    def _converted(self, file: RowFile, start: Progress) -> Iterator[tuple[Chunk, Converted]]:
        """Raises LoadError if the mapping fits no row of the first chunk: then it is the mapping that is wrong, and not the rows."""
        is_first = not start.place.row
        for chunk in file.chunks(start.place):
            converted = convert(chunk, self._wanted.mapping, self._target)
            if is_first and not converted.rows.num_rows and converted.refused:
                first = converted.refused[0]
                raise LoadError(
                    f"{self._wanted.path}: none of the first {len(chunk.lines):,} rows fits the mapping. Line {chunk.lines[first.number]}: {first.text}. "
                    "Correct the mapping; nothing was published."
                )
            is_first = False
            self._examples += [f"line {chunk.lines[r.number]}: {r.text}" for r in converted.refused[: EXAMPLES - len(self._examples)]]
            yield chunk, converted

    def _tried(self, file: RowFile) -> Summary:
        start = end = self._start()
        for chunk, converted in self._converted(file, start):
            for at in range(0, converted.rows.num_rows, SLICE_ROWS):
                encode(converted.rows.slice(at, SLICE_ROWS), schema=self._wanted.mapping.schema, schema_id=ENCODED_SCHEMA_ID_UNKNOWN)
            self._note(chunk, converted)
            end = _after(end, chunk, converted)
            self._told.done(file.done())
        return self._summary(start, end)

    async def _load(self, file: RowFile) -> Summary:
        start = end = self._start()
        if start.is_done:
            return self._summary(start, start)
        sink = open_sink(self._settings)
        try:
            topic, schema = str(self._wanted.topic), self._wanted.mapping.schema
            schema_id = await prepare_topic(self._settings, sink, open_registry(self._settings), topic)
            async with publishing(sink, topic, schema=schema, schema_id=schema_id) as publisher, aclosing(self._ready(file, start, schema_id)) as ready:
                async for chunk, converted, records in ready:
                    end = await self._publish(sink, publisher, end, chunk, converted, records)
                    self._told.done(file.done())
            self._require_unchanged()
            self._kept.save(replace(end, is_done=True))
            return self._summary(start, end)
        finally:
            await sink.close()

    async def _ready(self, file: RowFile, start: Progress, schema_id: int) -> AsyncGenerator[tuple[Chunk, Converted, list[Outgoing]]]:
        """Chunks with their records; the next one is made in a thread while this one is published."""
        found = self._converted(file, start)

        def following() -> tuple[Chunk, Converted, list[Outgoing]] | None:
            for chunk, converted in found:
                return chunk, converted, self._records(converted, schema_id)
            return None

        coming = asyncio.create_task(asyncio.to_thread(following))
        try:
            while (ready := await coming) is not None:
                coming = asyncio.create_task(asyncio.to_thread(following))
                yield ready
        finally:
            await asyncio.gather(coming, return_exceptions=True)  # a thread cannot be stopped, and the file must not be closed under it

    def _records(self, converted: Converted, schema_id: int) -> list[Outgoing]:
        """Keyed records of the rows, in order; their time is now, for a log keeps records by their time and history would be dropped at once."""
        now_ms = SystemClock().now_us() // 1000
        records: list[Outgoing] = []
        key = KINDS[self._wanted.mapping.data_type].key
        for at in range(0, converted.rows.num_rows, SLICE_ROWS):
            rows = converted.rows.slice(at, SLICE_ROWS)
            values = encode(rows, schema=self._wanted.mapping.schema, schema_id=schema_id).to_pylist()
            keys = [text.encode() for text in rows[key].to_pylist()]
            records += [Outgoing(k, value, now_ms) for k, value in zip(keys, values, strict=True)]
        return records

    async def _publish(
        self, sink: LogSink, publisher: Publisher, progress: Progress, chunk: Chunk, converted: Converted, records: Sequence[Outgoing]
    ) -> Progress:
        self._require_unchanged()
        await self._paced(publisher, records)
        letters = self._letters(chunk, converted)
        await write_letters(sink, self._settings, self._wanted.topic, letters)
        await asyncio.to_thread(keep_letters, self._settings, letters)  # before the chunk counts as done, or the table might never hear of them
        self._note(chunk, converted)
        await publisher.flush()
        self._on_step("load.published")
        progress = _after(progress, chunk, converted)
        self._kept.save(progress)
        self._on_step("load.saved")
        return progress

    def _note(self, chunk: Chunk, converted: Converted) -> None:
        if self._rejects is not None and converted.refused:
            self._rejects.add(chunk, converted.refused)

    async def _paced(self, publisher: Publisher, records: Sequence[Outgoing]) -> None:
        rate = self._wanted.rate
        few = max(1, min(SLICE_ROWS, int(rate))) if rate else SLICE_ROWS
        for at in range(0, len(records), few):
            began = time.monotonic()
            await publisher.records(records[at : at + few])
            if rate:
                await publisher.flush()
                await asyncio.sleep(max(0.0, len(records[at : at + few]) / rate - (time.monotonic() - began)))

    def _letters(self, chunk: Chunk, converted: Converted) -> list[Letter]:
        name = f"{self._wanted.path.name}@{self._target.fingerprint[:16]}"
        now_ms = SystemClock().now_us() // 1000
        return [
            letter_of_line(
                str(self._wanted.topic), name, int(chunk.lines[r.number]), timestamp_ms=now_ms, value=chunk.raw(r.number), reason=r.reason, text=r.text
            )
            for r in converted.refused
        ]


def _after(progress: Progress, chunk: Chunk, converted: Converted) -> Progress:
    return replace(progress, place=chunk.after, published=progress.published + converted.rows.num_rows, rejected=progress.rejected + len(converted.refused))
