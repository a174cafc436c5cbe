"""The balance sheet of a demo: expected beside found, three questions with their answers, where to look next."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from k2stream.audit import AuditReport
from k2stream.demo.found import Found
from k2stream.demo.truth import Truth
from k2stream.feed.faults import Injected
from k2stream.lake.offsets import Counts, Vector
from k2stream.query.engine import Engine
from k2stream.query.format import as_table
from k2stream.query.questions import busiest_seconds, daily_bars, trades
from k2stream.settings import Settings
from k2stream.table_file import TableFile


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of the sheet."""

    what: str
    expected: str
    found: str

    @property
    def is_right(self) -> bool:
        return self.expected == self.found


def lines_of(truth: Truth, found: Found, ledger: Counts, report: AuditReport, *, is_first_run: bool) -> list[Line]:
    """Every figure that a demo promises; effects of faults are asked of a first run only."""
    by = ", straight from the CSV and JSON" if truth.repeated_lines is not None else ""
    lines = [
        Line("trades in the table", f"{truth.rows:,}", f"{found.rows:,}"),
        Line("different exchange, symbol, trade id", f"{truth.rows:,}", f"{found.keys:,}"),
        *(Line(f"price * quantity, {e}{by}", f"{t:,.8f}", f"{found.turnover.get(e, 0):,.8f}") for e, t in sorted(truth.turnover.items())),
        Line("ledger: rows", f"{truth.rows:,}", f"{ledger.rows:,}"),
        Line("gap events equal the oracle's", "yes", "yes" if found.is_as_oracle else "no"),
        Line("audit", "balanced", "balanced" if report.balanced else "; ".join(report.problems)),
    ]
    if truth.repeated_lines is not None:
        lines.insert(2, Line("byte-identical lines kept as trades", f"{truth.repeated_lines:,}", f"{found.repeated_lines:,}"))
    if truth.injected is not None and is_first_run:
        lines += [Line(*line) for line in _effects(truth.injected, found, ledger)]
    return lines


def _effects(injected: Injected, found: Found, ledger: Counts) -> Iterator[tuple[str, str, str]]:
    def line(effect: str, kinds: str, put_in: int, seen: int) -> tuple[str, str, str]:
        return f"{effect} ({kinds})" if kinds else effect, f"{put_in:,}", f"{seen:,}"

    yield line("duplicates", "same record, second feed, whole range again", injected.duplicates, ledger.duplicates)
    for reason in sorted({*injected.dead_letters, *found.letters}):
        yield line(f"dead letters, {reason}", "", injected.dead_letters.get(reason, 0), found.letters[reason])  # type: ignore[call-overload] # a Reason is a str
    yield line("gaps opened", "missing, late, null numbers, dead letters", injected.opened, found.events["opened"])
    yield line("gaps filled", "late numbers", injected.filled, found.events["filled"])
    yield line("sequence resets", "and each new session", injected.resets, found.events["reset"])
    yield line("numbers missing at the end", "", injected.missing, found.missing)
    yield line("trades without a number", "", injected.untracked, found.untracked)


def total(vector: Vector) -> Counts:
    """The ledger of all partitions together."""
    counts = Counts()
    for entry in vector.values():
        counts += entry.counts
    return counts


def show_sheet(console: Console, lines: Sequence[Line], ledger: Counts, offsets: int) -> None:
    """Print the figures and the ledger as its equation."""
    table = Table(title="Balance sheet", title_justify="left", box=None, pad_edge=False)
    for name, justify in (("", "left"), ("expected", "right"), ("found", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type] # rich's literals
    for line in lines:
        table.add_row(line.what, line.expected, line.found, "[green]ok[/]" if line.is_right else "[red]WRONG[/]")
    console.print(table)
    console.print(
        f"\nLedger since the home's first run: {offsets:,} offsets = {ledger.rows:,} rows + {ledger.duplicates:,} duplicates + "
        f"{ledger.dead_letters:,} dead letters + {ledger.markers:,} markers + {ledger.holes:,} holes"
    )


def show_faults(console: Console, injected: Injected) -> None:
    """Print what was put in, by kind."""
    console.print("\nFaults put in: " + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in injected.faults.items()))


def show_answers(console: Console, engine: Engine, files: Sequence[TableFile]) -> None:
    """Three questions and what the table says."""
    questions = (
        ("The newest five trades of BHP", trades(engine, files, symbol="BHP", limit=5).select(["timestamp", "symbol", "price", "quantity", "trade_id"])),
        ("A bar a day", daily_bars(engine, files).slice(0, 6)),
        ("The busiest seconds", busiest_seconds(engine, files, limit=3)),
    )
    for title, answer in questions:
        console.print(f"\n{title}:")
        console.print(as_table(answer), end="", highlight=False, markup=False, soft_wrap=True)


def show_next(console: Console, settings: Settings) -> None:
    """Where a newcomer may look next."""
    home, k2 = settings.home_path(), command()
    steps = (
        ("query trades --symbol RIO --limit 10", "ask the table"),
        ("audit", "prove the ledger from the table's own rows"),
        ("demo --faults --fresh", "the same with faults, injected beside found"),
        ("worker", f"the agents alone; pages at http://{settings.web_host}:{settings.web_port}/state"),
    )
    catalog = f"SqlCatalog('k2', uri='sqlite:///{home}/catalog.db')" if not settings.catalog_uri else "load_catalog('k2', uri=...)"
    console.print(
        "\nLook next:\n"
        + "".join(f"  {k2} {arguments:38} {what}\n" for arguments, what in steps)
        + f"  {catalog}.load_table('{settings.namespace}.trades') in PyIceberg\n"
        f"Everything lies under {home}; `{k2} reset` removes it.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def command() -> str:
    """How to type `k2` here: by its name where the PATH has it, else by its path from the working folder."""
    started = Path(sys.argv[0])
    if shutil.which("k2") is not None or started.name != "k2":
        return "k2"
    return os.path.relpath(started) if started.is_absolute() else str(started)
