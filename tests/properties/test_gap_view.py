"""The current state of gaps equals a fold that reads their events one by one, in whatever order and files they lie."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.gaps import EVENTS
from k2stream.gaps_oracle import GapOracle
from k2stream.query.engine import Engine
from k2stream.query.gaps import GapFilter, State, gaps_now
from k2stream.rows import TIMESTAMP
from k2stream.testing import ParquetTable, gap_events
from tests.properties.test_gaps import Log, logs, notes_of, place_of, rows_of

WRITTEN_AT = datetime(2014, 3, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def waived(event: dict[str, Any]) -> dict[str, Any]:
    """A person's word about a gap that `event` opened."""
    return {**event, "event_id": f"w{event['event_id']}", "kind": "waived", "waived_by": "ann", "waived_because": "holiday"}


def folded(events: list[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """The oracle: state and what is missing by gap, event after event in the order of the records."""
    gaps: dict[str, tuple[str, int]] = {}
    for event in events:
        state, missing = gaps.get(event["gap_id"], ("", 0))
        match event["kind"]:
            case "opened":
                gaps[event["gap_id"]] = ("open", event["missing"])
            case "waived":
                gaps[event["gap_id"]] = ("filled" if state == "filled" else "waived", missing)
            case "shrunk":
                gaps[event["gap_id"]] = (state if state == "waived" else "shrunk", event["missing"])
            case "filled":
                gaps[event["gap_id"]] = ("filled", 0)
    return gaps


def table_of(events: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(events, schema=EVENTS)
    times = [WRITTEN_AT + timedelta(seconds=n) for n in range(len(events))]
    return table.append_column("written_at", pa.array(times, TIMESTAMP))


@settings(max_examples=80, deadline=None)
@given(log=logs(), data=st.data())
def test_the_view_is_the_fold_of_the_events(engine: Engine, log: Log, data: st.DataObject) -> None:
    """Numbers that two sessions miss both, fills of a session before, gaps waived by a person and filled all the same: each has its state."""
    log.records.sort(key=place_of)
    events: list[dict[str, Any]] = []
    for event in GapOracle("trades", 10).feed(rows_of(log.records), notes_of(log.records)):
        events.append(event)
        if event["kind"] in ("opened", "shrunk") and data.draw(st.integers(0, 4)) == 0:
            events.append(waived(event))
    expected = folded(events)
    shuffled = data.draw(st.permutations(events))
    with TemporaryDirectory() as folder:
        table = ParquetTable(Path(folder))
        half = len(shuffled) // 2
        for part in (shuffled[:half], shuffled[half:]):
            table.add(table_of(part))

        found = gaps_now(engine, table.files(2)).to_pylist()
        owing = gaps_now(engine, table.files(2), GapFilter(states=(State.OPEN, State.SHRUNK)))

    assert {gap["gap_id"]: (gap["state"], gap["missing"]) for gap in found} == expected
    assert len(found) == len(expected)
    assert set(owing["gap_id"].to_pylist()) == {id for id, (state, _) in expected.items() if state in ("open", "shrunk")}


def test_events_of_an_older_table_are_folded_by_their_range(engine: Engine, tmp_path: Path) -> None:
    """Before gaps had ids: no column of them, and still one row a gap."""
    rows = [
        {"event_id": "1", "kind": "opened", "missing": 2},
        {"event_id": "2", "kind": "filled", "missing": 0},
        {"event_id": "3", "kind": "opened", "missing": 1, "symbol": "CBA"},
    ]
    table = ParquetTable(tmp_path)
    times = pa.array([WRITTEN_AT] * 3, TIMESTAMP)
    table.add(gap_events(rows).append_column("written_at", times).drop_columns(["gap_id", "waived_by", "waived_because"]))

    found = gaps_now(engine, table.files(1)).to_pylist()

    assert [(gap["symbol"], gap["state"], gap["missing"]) for gap in found] == [("BHP", "filled", 0), ("CBA", "open", 1)]
