"""Live progress of a demo: two bars and one line of counts, or a plain line every two seconds."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_SECONDS = 2.0


class Watcher:
    """Shows what the publisher did and what the worker's `/state` says."""

    def __init__(self, console: Console, *, total: int, is_live: bool) -> None:
        self._console, self._total, self._is_live = console, total, is_live and console.is_terminal
        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[says]}"), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, disable=not self._is_live)
        self._published = self._bars.add_task("published", total=total, says="")
        self._committed = self._bars.add_task("committed", total=total, says="")
        self._last_line_at = 0.0
        self._rates: list[tuple[float, int]] = []

    def __enter__(self) -> "Watcher":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, published: int, state: Mapping[str, Any]) -> None:
        """`published` records so far; `state` is the data type's JSON of `/state`."""
        c = state["since_start"]
        handled = c["rows"] + c["duplicates"] + c["dead_letters"]
        says = (
            f"{self._rate(handled):,.0f} rows/s, lag {state['lag']:,}, gaps {c['gap_events'].get('opened', 0)}, "
            f"duplicates {c['duplicates']:,}, dead letters {c['dead_letters']}, commits {c['commits']}"
        )
        if self._is_live:
            self._bars.update(self._published, completed=published)
            self._bars.update(self._committed, completed=handled, says=says)
        elif time.monotonic() - self._last_line_at >= PLAIN_EVERY_SECONDS:
            self._last_line_at = time.monotonic()
            self._console.print(f"published {published:,} of {self._total:,}, committed {handled:,}, {says}", highlight=False)

    def _rate(self, handled: int) -> float:
        """Rows a second over the last two seconds or so."""
        now = time.monotonic()
        self._rates = [(at, rows) for at, rows in self._rates if now - at < PLAIN_EVERY_SECONDS]
        self._rates.append((now, handled))
        since, rows = self._rates[0]
        return (handled - rows) / (now - since) if now > since else 0.0
