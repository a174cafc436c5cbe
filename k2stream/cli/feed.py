"""`k2 feed`: market data into the log, live and recorded."""

from typing import Annotated, Literal

import typer

app = typer.Typer(help="Publish market data to the log.", no_args_is_help=True)


@app.command()
def recorded(
    what: Annotated[Literal["trades", "quotes", "instruments"], typer.Argument(help="Which recording.")] = "trades",
    rows: Annotated[int | None, typer.Option(min=1, help="Publish so many rows only.")] = None,
) -> None:
    """Publish recorded trades, quotes or instruments that come with k2stream."""
    from k2stream.home import Home
    from k2stream.settings import load_settings

    settings = load_settings()
    Home.open(settings.home)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

    from k2stream.playback import RECORDED, publish_recorded

    total = min(rows or RECORDED[what], RECORDED[what])
    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        published = publish_recorded(settings, what, rows=rows, progress=lambda count: bar.advance(task, count))
    for part in published:
        typer.echo(f"{part.topic}: {part.records:,} {what}, {part.markers:,} markers")


Symbols = Annotated[str, typer.Option(help="As the venue writes them, a comma list; without it those of K2_INSTRUMENTS_FILE, else config/instruments.yaml.")]
Quotes = Annotated[bool, typer.Option("--quotes", help="Best bid and ask too, into the topic of quotes.")]


@app.command()
def binance(symbols: Symbols = "", quotes: Quotes = False) -> None:
    """Publish Binance's trades as they come, until stopped: --symbols BTCUSDT,ETHUSDT."""
    _live("binance", symbols, quotes=quotes)


@app.command()
def kraken(symbols: Symbols = "", quotes: Quotes = False) -> None:
    """Publish Kraken's trades as they come, until stopped: --symbols BTC/USD,ETH/USD."""
    _live("kraken", symbols, quotes=quotes)


@app.command()
def coinbase(symbols: Symbols = "", quotes: Quotes = False) -> None:
    """Publish Coinbase Exchange's trades as they come, until stopped: --symbols BTC-USD,ETH-USD."""
    _live("coinbase", symbols, quotes=quotes)


def _live(venue: str, symbols: str, *, quotes: bool) -> None:
    from k2stream.feed.venue import VENUES
    from k2stream.home import Home
    from k2stream.live_feed import run
    from k2stream.settings import load_settings
    from k2stream.topics.files import symbols_of

    settings = load_settings()
    wanted = [s.strip() for s in symbols.split(",") if s.strip()] or symbols_of(settings, venue)
    Home.open(settings.home)
    run(settings, VENUES[venue], wanted, quotes=quotes)
