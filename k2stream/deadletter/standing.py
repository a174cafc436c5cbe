"""The dead letters of a lake with what was done about them: what `k2 dlq` asks and writes to."""

import os
import pwd
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from k2stream.clock import Clock, SystemClock
from k2stream.deadletter.envelope import Letter, origin_of
from k2stream.deadletter.rows import letters_of
from k2stream.deadletter.trail import REPLAYS, REPLAYS_SCHEMA, Act, Outcome, Sent, Writer, outcome, trail_rows
from k2stream.lake.catalog import open_catalog
from k2stream.lake.head import Head
from k2stream.lake.journal import Journal
from k2stream.lake.letter_files import LetterFiles
from k2stream.query import letters as questions
from k2stream.query.engine import Engine
from k2stream.query.letters import Selection
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.topics import TopicName

SETTLED = "settled"
"""Replay id of outcomes that no running replay wrote."""


class DeadLetters:
    """Letters, trail and tables of one lake; every call blocks. Reads are of now, each call anew."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, who: str | None = None) -> None:
        """Opens the catalog; raises LakeError. The table `replays` is made by the first that is written to it."""
        self.settings, self.clock = settings, clock or SystemClock()
        self.who = who or user()
        with ExitStack() as stack:
            catalog = open_catalog(settings)
            stack.callback(catalog.close)
            self.engine = stack.enter_context(Engine.of(settings))
            self._journal = Journal(settings, REPLAYS, catalog=catalog)
            self._files = LetterFiles(catalog, settings)
            self._closing = stack.pop_all()

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def writer(self, replay_id: str | None = None) -> Writer:
        return Writer(replay_id or str(uuid4()), self.who)

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to the trail; returns once they are in the table."""
        self._journal.append(trail_rows(rows))

    def trail(self) -> pa.Table:
        """Everything that was done, oldest first."""
        found = questions.trail_of(self.engine, self._journal.files())
        return REPLAYS_SCHEMA.empty_table() if found is None else found.select(REPLAYS_SCHEMA.names).cast(REPLAYS_SCHEMA)

    def letters(self) -> pa.Table | None:
        """Every letter but its bytes; None if there are none."""
        return questions.letters(self.engine, self._files.files())

    def standing(self) -> pa.Table | None:
        """One line a record that died, as query.letters.STATES; outcomes that nobody wrote down yet are counted in."""
        letter = self.letters()
        if letter is None:
            return None
        trail = self.trail()
        fresh = trail_rows(self.outcomes(trail, letter))
        return questions.standing(self.engine, letter, pa.concat_tables([trail, fresh]), attempts=self.settings.replay_attempts)

    def chosen(self, selection: Selection) -> pa.Table | None:
        """The lines that a selection asks for; None if there are no letters at all."""
        found = self.standing()
        return None if found is None else questions.chosen(self.engine, found, selection)

    def sized(self, found: pa.Table) -> pa.Table:
        """The same lines with `size_bytes`, what a letter's value takes: the one question that reads values."""
        origins = found["origin"].to_pylist()
        by_origin = questions.sizes(self.engine, self._files.files(), origins)
        return found.append_column("size_bytes", pa.array([by_origin.get(origin) for origin in origins], pa.int64()))

    def heads(self) -> dict[str, int | None]:
        """The newest snapshot of every table whose windows bring letters: nothing becomes of a letter while these stay."""
        return self._files.heads()

    def whole(self, origins: Sequence[str]) -> list[Letter]:
        """The letters of these origins with their bytes, in the order asked for; one that is not there is left out."""
        if not origins:
            return []
        rows = questions.whole(self.engine, self._files.files(), origins)
        by_origin = {letter.origin: letter for letter in letters_of(rows)}
        return [by_origin[origin] for origin in origins if origin in by_origin]

    def edits(self) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Key and value by first origin, of letters that were edited; the newest edit counts."""
        trail = self.trail()
        edited = trail.filter(pc.equal(trail["act"], Act.EDITED.value))
        return {row["first_origin"]: (row["key"], row["value"]) for row in edited.to_pylist()}

    def source_of(self, topic: str) -> tuple[Head, list[TableFile]] | None:
        """Head and files of the table that a topic's rows go to; None if there is none."""
        return self._files.head_of(table_of(TopicName.parse(topic).data_type))

    def columns_of(self, data_type: str) -> pa.Schema | None:
        """Columns of the table that a data type's rows go to; None if there is none."""
        return self._files.columns_of(table_of(data_type))

    def settle(self) -> int:
        """Write down what became of everything that was published; how many that were."""
        letter = self.letters()
        fresh = [] if letter is None else self.outcomes(self.trail(), letter)
        self.write(fresh)
        return len(fresh)

    def outcomes(self, trail: pa.Table, letter: pa.Table) -> list[dict[str, object]]:
        """Rows of the trail for published records whose window has been committed and whose outcome is not in `trail`.

        The head is read before the letters are looked at again, so that a letter of a committed window is never missed.
        """
        by, now_us = self.writer(SETTLED), self.clock.now_us()
        rows: list[dict[str, object]] = []
        for data_type, waiting in _by_data_type(untold(trail)).items():
            found = self._files.head_of(table_of(data_type))
            if found is None:
                continue
            head, files = found
            passed = [s for s in waiting if (s.topic, s.partition) in head.vector and s.offset < head.vector[s.topic, s.partition].next]  # type: ignore[index] # a TopicPartition is equal to its pair
            if not passed:
                continue
            letter = self.letters() or letter
            became = questions.rows_at(self.engine, files, _origins(passed))
            dead = questions.dead_at(self.engine, letter, [origin_of(s.topic, s.partition, s.offset) for s in passed])
            for sent in passed:
                reason = dead.get(origin_of(sent.topic, sent.partition, sent.offset))
                rows.append(outcome(by, now_us, sent, _came(sent, became, reason), reason))
        return rows


def _came(sent: Sent, rows: set[tuple[str, int, int]], reason: str | None) -> Outcome:
    if (sent.topic, sent.partition, sent.offset) in rows:
        return Outcome.ROW
    if reason is not None:
        return Outcome.DEAD
    return Outcome.MARKER if sent.is_marker else Outcome.DUPLICATE


def untold(trail: pa.Table) -> list[Sent]:
    """Published records whose outcome nobody wrote down, each once."""
    names = ["act", "first_origin", "attempt", "topic", "partition", "offset", "note"]
    waiting: dict[tuple[str, int, int], Sent] = {}
    for row in trail.select(names).to_pylist():
        place = (row["topic"], row["partition"], row["offset"])
        if row["act"] == Act.PUBLISHED:
            waiting[place] = Sent(row["first_origin"], row["attempt"], *place, is_marker=row["note"] == "marker")
        elif row["act"] == Act.OUTCOME:
            waiting.pop(place, None)
    return list(waiting.values())


def table_of(data_type: str) -> str:
    """Name of the table that a data type's rows go to."""
    return {"reference_data": "instruments"}.get(data_type, data_type)


def user() -> str:
    """Who runs this process, on which machine."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user needs no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _by_data_type(waiting: Iterable[Sent]) -> dict[str, list[Sent]]:
    by_type: dict[str, list[Sent]] = {}
    for sent in waiting:
        by_type.setdefault(TopicName.parse(sent.topic).data_type, []).append(sent)
    return by_type


def _origins(passed: Sequence[Sent]) -> pa.Table:
    return pa.table(
        {
            "topic": pa.array([s.topic for s in passed], pa.string()),
            "partition": pa.array([s.partition for s in passed], pa.int32()),
            "offset": pa.array([s.offset for s in passed], pa.int64()),
        }
    )
