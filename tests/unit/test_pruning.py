"""Files are left out only if their bounds exclude every value asked for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2stream.query.engine import Engine
from k2stream.query.pruning import FIRST_US, LAST_US, may_hold, micros, moment
from k2stream.query.seen import TableSeen
from k2stream.table_file import TableFile
from k2stream.testing import trade_rows

NOON = datetime(2014, 3, 10, 12, tzinfo=UTC)


def bounded(**bounds: tuple[object, object]) -> TableFile:
    """A file that exists nowhere, with these lower and upper bounds."""
    lower, upper = ({name: pair[end] for name, pair in bounds.items()} for end in (0, 1))
    return TableFile("nowhere.parquet", 1, 1, lower, upper)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [("A", "C", True), ("BHP", "BHP", True), ("RIO", "S", True), ("A", "BHO", False), ("RIP", "Z", False), ("C", "D", True)],
)
def test_both_bounds_are_inside(first: str, last: str, expected: bool) -> None:
    """A value equal to a bound may be held; one beyond it cannot."""
    assert may_hold(bounded(symbol=("BHP", "RIO")), "symbol", first, last) is expected


@pytest.mark.parametrize("missing", [TableFile("x", 1, 1, {}, {}), bounded(symbol=(None, None)), bounded(symbol=(b"\x00", b"\x01"))])
def test_a_file_without_bounds_is_always_read(missing: TableFile) -> None:
    """Unknown is not excluded."""
    assert may_hold(missing, "symbol", "A", "A")


@pytest.mark.parametrize("kind", [int, datetime.fromisoformat, lambda text: datetime.fromisoformat(text).replace(tzinfo=None)])
def test_times_are_compared_whatever_a_manifest_calls_them(kind: type) -> None:
    """Microseconds, aware and naive UTC times of a manifest mean the same moment."""
    value = micros(NOON) if kind is int else kind(NOON.isoformat())
    file = bounded(timestamp=(value, value))

    assert may_hold(file, "timestamp", micros(NOON), micros(NOON))
    assert not may_hold(file, "timestamp", micros(NOON) + 1, LAST_US)
    assert not may_hold(file, "timestamp", FIRST_US, micros(NOON) - 1)


def test_moments_stop_at_the_ends_of_the_calendar() -> None:
    """Numbers that are no date become the first and the last; all others come back exactly."""
    assert (moment(-(1 << 62)).year, moment(1 << 62).year) == (1, 9999)
    assert micros(moment(micros(NOON) + 1)) == micros(NOON + timedelta(microseconds=1))


@pytest.mark.parametrize(
    "file",
    [
        bounded(timestamp=(micros(NOON) + 61, micros(NOON) + 99)),
        bounded(exchange=("BINANCE", "BINANCE")),
        bounded(symbol=("BHQ", "RIN")),
        bounded(symbol=("RIO", "RIO"), timestamp=(micros(NOON) - 100, micros(NOON) - 31)),
    ],
    ids=["time", "exchange", "between the symbols", "another symbol's time"],
)
def test_seen_opens_no_file_that_cannot_hold_a_row_asked_for(tmp_path: Path, file: TableFile) -> None:
    """Each stream key is tried at its own times: the file does not exist, so opening it would fail."""
    rows = trade_rows([{"symbol": "BHP", "timestamp": NOON}, {"symbol": "RIO", "timestamp": moment(micros(NOON) + 30)}])
    with Engine() as engine:
        seen = TableSeen(lambda snapshot_id: [file], 30, engine=engine)

        assert not seen(*(rows[name] for name in ("exchange", "symbol", "trade_id", "timestamp")), 1).any()
