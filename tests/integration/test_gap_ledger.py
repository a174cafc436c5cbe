"""The gap ledger on real tables: what `k2 gaps` says, and a person's word kept once whatever races."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from k2stream.cli import app
from k2stream.errors import QueryError
from k2stream.gap_ledger import list_gaps, show_gap, waive
from k2stream.gaps import Notes, Tracker
from k2stream.lake.offsets import Counts
from k2stream.lake.window import Window
from k2stream.query.gaps import GapFilter
from k2stream.testing import trade_rows
from tests.integration.lake_site import TP, LakeSite, soon

NINE = datetime(2014, 3, 10, 9, tzinfo=UTC)


class Ledger:
    """A home whose tables hold trades with these numbers, in windows, and the gap events that the tracker makes of them."""

    def __init__(self, home: Path) -> None:
        self.site = LakeSite(home)
        self.worker = self.site.started()
        self._tracker, self._next, self._windows = Tracker("trades", 10), 0, 0

    def window(self, *numbers: int, symbol: str = "BHP") -> None:
        first = self._next
        rows = trade_rows(
            {"symbol": symbol, "source_sequence": n, "trade_id": f"ASX-{symbol}-{n}", "offset": first + i, "timestamp": NINE + timedelta(seconds=n)}
            for i, n in enumerate(numbers)
        )
        self._next, self._windows = first + len(numbers), self._windows + 1
        events = self._tracker.settle(rows, Notes())
        window = Window(self._windows, rows, events, {TP: Counts(rows=len(numbers))}, {TP: (first, self._next)})
        self.worker.commit(self.worker.write(window), soon())
        self.worker.take_outbox(soon())

    def states(self) -> list[tuple[str, int, str, int]]:
        found = list_gaps(self.site.settings, GapFilter()).to_pylist()
        return [(gap["symbol"], gap["first_sequence"], gap["state"], gap["missing"]) for gap in found]

    def waive(self, id: str, *, because: str = "exchange holiday") -> int:
        return waive(self.site.settings, GapFilter(id=id), by="ann", because=because, deadline=soon(60)).said


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def id_of(ledger: Ledger, symbol: str) -> str:
    found = list_gaps(ledger.site.settings, GapFilter(symbol=symbol)).to_pylist()
    assert len(found) == 1
    return str(found[0]["gap_id"])


def test_a_waiver_is_said_once_and_a_later_fill_undoes_it(ledger: Ledger) -> None:
    """Who, when and why are kept; the number that comes after all is no longer waived but there."""
    ledger.window(1, 2, 5, 6)
    id = id_of(ledger, "BHP")

    assert [ledger.waive(id), ledger.waive(id, because="said again")] == [1, 0]
    assert ledger.states() == [("BHP", 3, "waived", 2)]
    gap = show_gap(ledger.site.settings, id[:6]).gap
    assert (gap["waived_by"], gap["waived_because"]) == ("ann", "exchange holiday")
    assert gap["waived_at"] >= gap["opened_at"]
    ledger.window(4, 7)
    assert ledger.states() == [("BHP", 3, "waived", 1)]
    ledger.window(3)
    assert ledger.states() == [("BHP", 3, "filled", 0)]
    assert len(ledger.site.event_ids()) == len(set(ledger.site.event_ids())) == 4
    with pytest.raises(QueryError, match="found filled"):
        ledger.waive(id)


def test_people_who_waive_at_once_while_a_worker_commits_say_it_once(ledger: Ledger) -> None:
    """All race for the head of one table: nobody's events are lost, and the waiver stands there once."""
    ledger.window(1, 5)
    id = id_of(ledger, "BHP")
    with ThreadPoolExecutor(4) as threads:
        said = [threads.submit(ledger.waive, id) for _ in range(3)]
        for number in range(3):
            ledger.window(10 * number + 7, symbol="CBA")
        assert sum(s.result() for s in said) == 1
    kinds = ledger.site.rows("gaps")["kind"].to_pylist()
    assert sorted(kinds) == ["opened", "opened", "opened", "waived"]


def test_the_outbox_goes_on_after_a_waiver(ledger: Ledger) -> None:
    """What a person appended carries on how far workers took: nothing is taken twice or left out."""
    ledger.window(1, 3)
    ledger.waive(id_of(ledger, "BHP"))
    ledger.worker = ledger.site.worker()
    ledger.window(5)
    assert sorted(ledger.site.rows("gaps")["kind"].to_pylist()) == ["opened", "opened", "waived"]


def test_a_waiver_needs_a_reason(ledger: Ledger) -> None:
    """Who asks later must find one."""
    ledger.window(1, 3)
    with pytest.raises(QueryError, match="who waives the gap and why"):
        ledger.waive(id_of(ledger, "BHP"), because=" ")


def test_the_rows_around_a_hole_are_shown(ledger: Ledger) -> None:
    """Before, late into it, after; rows of other symbols and farther away are left out."""
    ledger.window(1, 2, 3, 4, 9, 10, 11, 12)
    ledger.window(8, 7)
    ledger.window(1, 2, 3, symbol="CBA")

    story = show_gap(ledger.site.settings, id_of(ledger, "BHP"), rows=2)

    assert story.rows["source_sequence"].to_pylist() == [3, 4, 7, 8, 9, 10]
    assert set(story.rows["symbol"].to_pylist()) == {"BHP"}
    assert [(e["kind"], e["missing"]) for e in story.events.to_pylist()] == [("opened", 4), ("shrunk", 3), ("shrunk", 2)]


def test_the_commands_say_the_same(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """List, show and waive, for people and for programs; filters leave out what was not asked for."""
    monkeypatch.setenv("K2_HOME", str(ledger.site.settings.home))
    monkeypatch.setenv("K2_FSYNC", "false")
    ledger.window(1, 4, 9)
    ledger.window(1, 3, 2, symbol="CBA")

    def k2(*words: str) -> str:
        result = CliRunner().invoke(app, ["gaps", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    def listed(*words: str) -> list[tuple[str, int]]:
        return [(gap["symbol"], gap["first_sequence"]) for gap in json.loads(k2("list", "--json", *words))]

    assert listed() == [("BHP", 2), ("BHP", 5)]
    assert listed("--all") == [("CBA", 2), ("BHP", 2), ("BHP", 5)]
    assert listed("--state", "filled") == [("CBA", 2)]
    assert listed("--symbol", "CBA") == listed("--cause", "topic_loss") == listed("--exchange", "NYSE") == []
    assert listed("--from", "2014-03-10T09:00:05") == [("BHP", 5)]
    assert listed("--to", "2014-03-10T09:00:03") == [("BHP", 2)]
    assert listed("--limit", "1") == [("BHP", 5)]
    id = json.loads(k2("list", "--json"))[0]["gap_id"]
    assert "(2 rows)" in k2("list")
    assert "opened" in k2("show", id[:8])
    assert [row["source_sequence"] for row in json.loads(k2("show", id, "--json"))["rows"]] == [1, 4, 9]
    assert k2("waive", id, "--because", "known", "--by", "ann").splitlines()[-1] == f"{id[:8]} ASX BHP 2-3: 2 missing numbers are waived."
    assert json.loads(k2("waive", id, "--because", "known", "--json").splitlines()[-1]) == {"gap_id": id, "missing": 2, "is_new": False}
    assert listed() == [("BHP", 5)]
    complete = json.loads(k2("completeness", "--interval", "1h", "--format", "json"))
    counts = [(c["symbol"], c["expected"], c["received"], c["missing"], c["waived"], c["late"]) for c in complete]
    assert counts == [("BHP", 9, 3, 4, 2, 0), ("CBA", 3, 3, 0, 0, 1)]
    assert [c["symbol"] for c in json.loads(k2("completeness", "--holes", "--format", "json"))] == ["BHP"]


@pytest.mark.parametrize(
    "words",
    [["gaps", "list", "--json"], ["gaps", "completeness", "--format", "json"], ["query", "trades", "--format", "json"], ["query", "feeds", "--format", "json"]],
)
def test_an_exchange_is_asked_for_in_any_case(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """And one that nobody ever wrote is said on stderr, while stdout and exit code are those of an empty answer."""
    ledger.window(1, 2, 5, 6)
    monkeypatch.setenv("K2_HOME", str(ledger.site.settings.home))

    def said(exchange: str) -> tuple[list[dict[str, object]], str]:
        result = CliRunner().invoke(app, [*words, "--exchange", exchange], catch_exceptions=False)
        assert result.exit_code == 0
        return json.loads(result.stdout), result.stderr

    upper, lower, nobody = said("ASX"), said("asx"), said("NOPE")
    assert upper[0]
    assert [row["exchange"] for row in upper[0]] == [row["exchange"] for row in lower[0]]
    assert "No row" not in lower[1]
    assert nobody[0] == []
    assert "No row is of exchange 'NOPE': there is ASX.\n" in nobody[1]


def test_a_gap_that_is_not_there_is_named(ledger: Ledger) -> None:
    """Not a guess, and never another gap."""
    ledger.window(1, 3, 5)
    with pytest.raises(QueryError, match="expected the beginning of one gap's id, found none"):
        show_gap(ledger.site.settings, "xyz")
    with pytest.raises(QueryError, match=r"found \w{32}, \w{32}"):
        show_gap(ledger.site.settings, "")


def test_a_home_without_gaps_has_an_empty_list(ledger: Ledger) -> None:
    """An empty table is no error."""
    assert list_gaps(ledger.site.settings, GapFilter()).num_rows == 0
    assert isinstance(list_gaps(ledger.site.settings, GapFilter()), pa.Table)
