"""`k2 backfill`: missing trades of open gaps, asked back from a venue."""

from typing import Annotated, Literal

import typer

EXIT_LEFT = 1


def backfill(
    venue: Annotated[Literal["binance", "kraken", "coinbase"], typer.Argument(help="Whose gaps.")],
    symbols: Annotated[str, typer.Option(help="Only these, as the venue writes them, a comma list.")] = "",
    cause: Annotated[list[str] | None, typer.Option(help="Gaps of this cause; may be given again. Without it: feed_reconnect and upstream.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing; ask nobody.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask again for what was published, or was not to be had, before.")] = False,
    every: Annotated[float, typer.Option(min=0.0, help="Look again after so many seconds, until stopped; 0: once.")] = 0.0,
) -> None:
    """Ask a venue for the trades of open gaps and publish them; a running worker makes rows of them and closes the gaps.

    Exit code 1 if something is still missing that the venue may have.
    """
    import asyncio

    from k2stream.backfill import CAUSES, notes_of, rounds
    from k2stream.home import Home
    from k2stream.settings import load_settings

    settings = load_settings()
    Home.open(settings.home)
    notes = notes_of(settings, venue)
    if again:
        notes.forget()
    wanted = [s.strip() for s in symbols.split(",") if s.strip()]
    course = rounds(settings, venue, notes, symbols=wanted, causes=tuple(cause or CAUSES), told=typer.echo, every_seconds=every, is_dry=dry_run)
    raise typer.Exit(0 if asyncio.run(course) else EXIT_LEFT)
