"""Exchanges and symbols as people write them, and as tables have them: case does not count for an exchange, and what no row has is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k2stream.query.engine import Engine
from k2stream.query.pruning import overlapping
from k2stream.table_file import TableFile

EXCHANGES = "SELECT DISTINCT exchange FROM read_parquet($files, hive_partitioning = false)"

SYMBOLS = """
SELECT DISTINCT symbol FROM read_parquet($files, hive_partitioning = false)
WHERE symbol IN ($symbol, $upper, $lower) AND ($exchange IS NULL OR exchange = $exchange)
"""
"""Rows are sorted by symbol: most row groups are passed over by their bounds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An exchange that a question names."""

    exchange: str | None
    """As the tables have it, or as it was asked for if they do not; None asks for any."""
    note: str = ""
    """A sentence for who asked, if no row has it."""


def exchanges(engine: Engine, files: Sequence[TableFile]) -> set[str]:
    """Every exchange that has a row; files that a table keeps by exchange are not opened. Raises QueryError."""
    known = {file.path: name for file in files if isinstance(name := file.lower.get("exchange"), str) and name == file.upper.get("exchange")}
    mixed = [file for file in files if file.path not in known]
    found = engine.ask(EXCHANGES, files=mixed)["exchange"].to_pylist() if mixed else []
    return {*known.values(), *found}


def as_kept(exchange: str | None, held: Iterable[str]) -> Asked:
    """The one of `held` that is meant: the very name, else one that differs in case only."""
    names = sorted(held)
    if exchange is None or exchange in names:
        return Asked(exchange)
    meant = [name for name in names if name.upper() == exchange.upper()]
    return Asked(meant[0]) if meant else Asked(exchange, f"No row is of exchange {exchange!r}: {_there(names)}.")


def exchange_in(engine: Engine, files: Sequence[TableFile], exchange: str | None) -> Asked:
    """An exchange as the rows of these files have it. Raises QueryError."""
    return as_kept(exchange, exchanges(engine, files)) if exchange is not None else Asked(None)


def unknown_symbol(engine: Engine, files: Sequence[TableFile], symbol: str | None, exchange: str | None) -> str:
    """A sentence if no row at any time has this symbol; empty if one has, or it was not asked for. Raises QueryError."""
    if symbol is None:
        return ""
    cases = {"symbol": symbol, "upper": symbol.upper(), "lower": symbol.lower()}
    worth = {file.path: file for name in cases.values() for file in overlapping(files, "symbol", first=name, last=name)}
    values = {**cases, "exchange": exchange}
    names = sorted(engine.ask(SYMBOLS, files=list(worth.values()), values=values)["symbol"].to_pylist()) if worth else []
    where = "" if exchange is None else f" of {exchange}"
    if symbol in names:
        return ""
    return f"No row{where} is of symbol {symbol!r}" + (f": {_there(names)}." if names else ".")


def _there(names: Sequence[str]) -> str:
    return f"there {'are' if len(names) > 1 else 'is'} {', '.join(names)}" if names else "the table has no rows yet"
