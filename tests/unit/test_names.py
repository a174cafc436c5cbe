"""Names that people ask for: an exchange in any case, and a word for what no row has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.query.engine import Engine
from k2stream.query.names import Asked, as_kept, exchanges, unknown_symbol
from k2stream.testing import ParquetTable, trade_rows


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.mark.parametrize("asked", ["BINANCE", "binance", "Binance"])
def test_case_does_not_hide_rows(asked: str) -> None:
    """An exchange is found however it is written."""
    assert as_kept(asked, {"ASX", "BINANCE"}) == Asked("BINANCE")


def test_the_very_name_comes_first() -> None:
    """Where rows have both cases, each can be asked for."""
    assert as_kept("asx", {"ASX", "asx"}) == Asked("asx")
    assert as_kept(None, {"ASX"}) == Asked(None)


def test_an_exchange_that_no_row_has_is_said() -> None:
    """With what there is, and harmless to a terminal."""
    assert as_kept("NOPE\x1b[2J", {"ASX", "KRAKEN"}).note == "No row is of exchange 'NOPE\\x1b[2J': there are ASX, KRAKEN."
    assert as_kept("ASX", ()) == Asked("ASX", "No row is of exchange 'ASX': the table has no rows yet.")


def test_exchanges_of_files_that_hold_several_are_found(engine: Engine, tmp_path: Path) -> None:
    """One between a file's bounds too; a file of one exchange need not be there to be known."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"exchange": name} for name in ("ASX", "BINANCE", "KRAKEN")]))
    Path(table.add(trade_rows([{"exchange": "COINBASE"}])).path).unlink()

    assert exchanges(engine, table.files(2)) == {"ASX", "BINANCE", "COINBASE", "KRAKEN"}


def test_a_symbol_that_no_row_has_is_said(engine: Engine, tmp_path: Path) -> None:
    """With the one that differs in case only; one that another exchange has does not count."""
    table = ParquetTable(tmp_path)
    table.add(trade_rows([{"symbol": "BHP"}, {"symbol": "RIO"}]))
    table.add(trade_rows([{"symbol": "XBTUSD", "exchange": "KRAKEN"}]))
    files = table.files(2)

    assert unknown_symbol(engine, files, "bhp", None) == "No row is of symbol 'bhp': there is BHP."
    assert unknown_symbol(engine, files, "CBA", "ASX") == "No row of ASX is of symbol 'CBA'."
    assert unknown_symbol(engine, files, "XBTUSD", "ASX") == "No row of ASX is of symbol 'XBTUSD'."
    assert unknown_symbol(engine, files, "XBTUSD", "KRAKEN") == unknown_symbol(engine, files, None, None) == ""
    assert unknown_symbol(engine, [], "BHP", None) == "No row is of symbol 'BHP'."
