"""What a demo left behind: counts of the tables and gap events, and the events that the oracle derives from the same records."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from k2stream.deadletter.envelope import Letter, decode_letter
from k2stream.decode.record_decoder import without_value
from k2stream.gaps import EVENTS, Notes
from k2stream.gaps_oracle import oracle_events
from k2stream.query.engine import Engine
from k2stream.settings import Settings
from k2stream.table_file import TableFile
from k2stream.topics import LETTER_TOPICS
from k2stream.transport.reader import read_topics
from k2stream.verdict import Marker, Reject

COUNTS = """
SELECT exchange, count(*) AS rows, count(DISTINCT hash(symbol, trade_id)) AS keys, sum(price::DECIMAL(20, 8) * quantity) AS turnover,
  count(*) FILTER (source_sequence IS NULL) AS untracked
FROM read_parquet($files, hive_partitioning = false) GROUP BY exchange ORDER BY exchange
"""

REPEATED = """
SELECT coalesce(sum(n - 1), 0)::BIGINT AS repeated FROM (
  SELECT count(*) AS n FROM read_parquet($files, hive_partitioning = false) WHERE exchange = 'ASX'
  GROUP BY symbol, timestamp, price, quantity, vendor_data::VARCHAR
)
"""

ROWS_IN_ORDER = """
SELECT exchange, symbol, source_sequence, epoch_us(timestamp) AS timestamp, topic, partition, "offset"
FROM read_parquet($files, hive_partitioning = false) ORDER BY topic, partition, "offset"
"""

Event = Mapping[str, Any]
"""A gap event as a row of k2stream.gaps.EVENTS, times as microseconds."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the tables and the dead letter topics hold."""

    rows: int
    keys: int
    """Different (exchange, symbol, trade_id)."""
    turnover: Mapping[str, Decimal]
    repeated_lines: int
    untracked: int
    events: Counter[str]
    """Gap events by kind."""
    missing: int
    """Numbers missing by the newest event of each gap."""
    is_as_oracle: bool
    """The gaps table is, event by event, what the slow definition finds in the rows, markers and letters."""
    letters: Counter[str]
    """Different dead letters by reason."""


def find(settings: Settings, engine: Engine, trades: Sequence[TableFile], gaps: Sequence[TableFile], topics: Sequence[str]) -> Found:
    """Count what is there; `topics` are those that were published to."""
    by_exchange = engine.ask(COUNTS, files=trades).to_pylist() if trades else []
    letters = {letter.origin: letter for letter in _letters(settings)}
    events = _events(engine, gaps)
    return Found(
        rows=sum(e["rows"] for e in by_exchange),
        keys=sum(e["keys"] for e in by_exchange),
        turnover={e["exchange"]: e["turnover"] for e in by_exchange},
        repeated_lines=int(engine.ask(REPEATED, files=trades)["repeated"][0].as_py()) if trades else 0,
        untracked=sum(e["untracked"] for e in by_exchange),
        events=Counter(e["kind"] for e in events),
        missing=_missing(events),
        is_as_oracle=_by_id(events) == _by_id(_oracle(settings, engine, trades, topics, letters.values())),
        letters=Counter(letter.reason.value for letter in letters.values()),
    )


def _events(engine: Engine, files: Sequence[TableFile]) -> list[Event]:
    if not files:
        return []
    columns = ", ".join(f'epoch_us("{f.name}") AS "{f.name}"' if f.name.endswith("timestamp") else f'"{f.name}"' for f in EVENTS)
    events: list[Event] = engine.ask(f"SELECT {columns} FROM read_parquet($files, hive_partitioning = false)", files=files).to_pylist()
    return events


def _oracle(settings: Settings, engine: Engine, files: Sequence[TableFile], topics: Sequence[str], letters: Iterable[Letter]) -> list[Event]:
    rows = engine.ask(ROWS_IN_ORDER, files=files).to_pylist() if files else []
    notes = Notes(markers=tuple(_markers(settings, topics)), rejects=tuple(_reject(letter) for letter in letters))
    return list(oracle_events(rows, notes, data_type="trades", small_rows=settings.gap_small_rows))


def _letters(settings: Settings) -> Iterable[Letter]:
    return (decode_letter(record.value or b"") for record in read_topics(settings, LETTER_TOPICS))


def _markers(settings: Settings, topics: Sequence[str]) -> Iterable[Marker]:
    """Records without a value that say what a marker says."""
    for record in read_topics(settings, topics):
        if record.value is None and isinstance(note := without_value(record), Marker):
            yield note


def _reject(letter: Letter) -> Reject:
    return Reject(
        letter.topic,
        letter.partition,
        letter.offset,
        letter.timestamp_ms,
        letter.key,
        letter.value,
        letter.headers,
        letter.reason,
        letter.text,
        letter.schema_id,
    )


def _by_id(events: Iterable[Event]) -> list[Event]:
    """Whole events in one order; one that stands twice stays twice."""
    return sorted(({name: event[name] for name in EVENTS.names} for event in events), key=lambda e: str(e["event_id"]))


def _missing(events: Sequence[Event]) -> int:
    """The newest event of a gap says what remains of it."""
    newest: dict[tuple[object, ...], Event] = {}
    for event in sorted((e for e in events if e["kind"] != "reset"), key=lambda e: (e["topic"], e["partition"], e["offset"])):
        newest[event["exchange"], event["symbol"], event["first_sequence"], event["last_sequence"], _session(events, event)] = event
    return sum(int(event["missing"]) for event in newest.values())


def _session(events: Sequence[Event], event: Event) -> int:
    """How many resets of its stream lie before the gap: numbers begin anew with each."""
    return sum(
        e["kind"] == "reset" and (e["exchange"], e["symbol"]) == (event["exchange"], event["symbol"]) and e["timestamp"] <= event["timestamp"] for e in events
    )
