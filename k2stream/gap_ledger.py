"""The gap ledger as people use it: what is missing, what lies around a hole, and a person's word that one is accepted."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from k2stream.clock import Deadline
from k2stream.errors import QueryError
from k2stream.gaps import EVENTS, event_id
from k2stream.lake.reader import TableReader
from k2stream.lake.waivers import append_waivers
from k2stream.query.completeness import Ledger, completeness
from k2stream.query.engine import Engine
from k2stream.query.gaps import OWING, GapFilter, State, gaps_now, history, rows_around
from k2stream.query.names import Asked, as_kept, exchanges
from k2stream.sequence_state import Kind
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.topics import TopicName, redundant_topics

Gap = dict[str, Any]
"""A row of k2stream.query.gaps.GAPS."""


@dataclass(frozen=True, slots=True)
class GapStory:
    """One gap with all that is known of it."""

    gap: Gap
    events: pa.Table
    """In the order in which the numbers came, with `written_at`."""
    rows: pa.Table
    """Trades on both sides of the hole, and those that came late into it."""


@dataclass(frozen=True, slots=True)
class Waived:
    """What a person's word did."""

    gaps: tuple[Gap, ...]
    """Those it is about."""
    said: int
    """How many of them nobody had waived before."""


def list_gaps(settings: Settings, wanted: GapFilter) -> pa.Table:
    """Gaps as k2stream.query.gaps.GAPS. Raises QueryError, LakeError."""
    with Engine.of(settings) as engine:
        return gaps_now(engine, files_of(settings, "gaps"), wanted)


def exchange_asked(settings: Settings, exchange: str | None, *data_types: str) -> Asked:
    """An exchange as the rows of these data types have it. Raises QueryError, LakeError."""
    if exchange is None:
        return Asked(None)
    with closing(TableReader.open_reader(settings, "gaps")) as reader, Engine.of(settings) as engine:
        tables = [table for name in data_types if (table := reader.beside(name)).exists()]
        return as_kept(exchange, set[str]().union(*(exchanges(engine, table.newest_files()) for table in tables)))


def show_gap(settings: Settings, id: str, *, rows: int = 3) -> GapStory:
    """One gap by the beginning of its id. Raises QueryError if that names none or several; LakeError."""
    files = files_of(settings, "gaps")
    with Engine.of(settings) as engine:
        gap = _only(gaps_now(engine, files, GapFilter(id=id)).to_pylist(), id)
        around = rows_around(engine, files_of(settings, gap["data_type"]), gap, count=rows)
        return GapStory(gap, history(engine, files, gap["gap_id"]), around)


def waive(settings: Settings, wanted: GapFilter, *, by: str, because: str, deadline: Deadline) -> Waived:
    """Accept that what is missing of these gaps does not come; said twice it is there once. A gap that is filled later is filled.

    Raises QueryError if no gap of them misses anything, or the reason is empty; LakeError; Outraced.
    """
    if not by.strip() or not because.strip():
        raise QueryError("Expected who waives the gap and why, found nothing: name both (--by, --because), for those who ask later.")
    files = files_of(settings, "gaps")
    with Engine.of(settings) as engine:
        gaps = gaps_now(engine, files, wanted).to_pylist()
        owing = [gap for gap in gaps if gap["state"] in (*OWING, State.WAIVED)]
        if not owing:
            states = ", ".join(sorted({gap["state"] for gap in gaps})) or "none at all"
            raise QueryError(f"Nothing to waive: expected gaps of which something is missing, found {states}. `k2 gaps list` says what there is.")
        opened = history(engine, files, *(gap["gap_id"] for gap in owing)).drop_columns(["written_at"]).to_pylist()
    events = [_waiver(event, by.strip(), because.strip()) for event in opened if event["kind"] == Kind.OPENED and event["gap_id"]]
    if not events:
        raise QueryError("These gaps were opened by an older version, which gave them no id: they cannot be waived.")
    return Waived(tuple(owing), append_waivers(settings, pa.Table.from_pylist(events, schema=EVENTS), deadline))


def how_complete(
    settings: Settings,
    *,
    interval_seconds: int,
    data_type: str = "trades",
    symbol: str | None = None,
    exchange: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """As k2stream.query.completeness.COMPLETENESS, of the tables as they are now. Raises QueryError, LakeError."""
    with closing(TableReader.open_reader(settings, data_type)) as rows:
        gaps, quality = rows.beside("gaps"), rows.beside("quality")
        flags = quality.newest_files() if quality.exists() else ()  # nobody looked at rows here
        twins = {TopicName.parse(topic).venue.upper() for topic in redundant_topics(tp.topic for tp in rows.head().vector)}
        ledger = Ledger(rows.newest_files(), gaps.newest_files(), flags, twins, data_type=data_type)
    with Engine.of(settings) as engine:
        return completeness(engine, ledger, interval_seconds=interval_seconds, symbol=symbol, exchange=exchange, start=start, end=end)


def files_of(settings: Settings, table: str) -> Sequence[TableFile]:
    """Data files of a table as it is now; none if it is empty. Raises LakeError."""
    with closing(TableReader.open_reader(settings, table)) as reader:
        return reader.newest_files()


def _waiver(opened: Gap, by: str, because: str) -> Gap:
    stream, numbers = (opened["exchange"], opened["symbol"], opened["data_type"]), (opened["first_sequence"], opened["last_sequence"])
    id = event_id(stream, Kind.WAIVED, numbers, (opened["topic"], opened["partition"], opened["offset"]))
    return {**opened, "event_id": id, "kind": str(Kind.WAIVED), "waived_by": by, "waived_because": because}


def _only(gaps: Sequence[Gap], id: str) -> Gap:
    if len(gaps) != 1:
        found = ", ".join(gap["gap_id"] for gap in gaps[:5]) or "none"
        raise QueryError(f"gap {id}: expected the beginning of one gap's id, found {found}. `k2 gaps list` shows them.")
    return gaps[0]
