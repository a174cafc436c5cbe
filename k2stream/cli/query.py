"""`k2 query`: questions to the tables; rows go to stdout, what they rest on to stderr."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from k2stream.query.engine import Engine
    from k2stream.query.receipt import Receipt
    from k2stream.table_file import TableFile

app = typer.Typer(help="Ask the tables.", no_args_is_help=True)

Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol, as in BHP.")]
Exchange = Annotated[str | None, typer.Option("--exchange", help="Only this exchange, as in ASX; case does not count.")]
From = Annotated[str | None, typer.Option("--from", help="From this time on, ISO 8601; UTC unless it says otherwise.")]
To = Annotated[str | None, typer.Option("--to", help="Before this time.")]
Newest = Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")]
FORMS = Literal["table", "csv", "json"]
Form = Annotated[FORMS, typer.Option("--format", help="Decimals and times are whole in csv and json.")]


@app.command()
def trades(symbol: Symbol = None, exchange: Exchange = None, first: From = None, last: To = None, limit: Newest = 20, form: Form = "table") -> None:
    """The newest trades."""
    from k2stream.answers import Wanted, newest_trades
    from k2stream.lake.reader import TableReader
    from k2stream.moment import moment_of
    from k2stream.query.engine import Engine
    from k2stream.settings import settings_of_tables

    wanted, settings = Wanted(symbol, exchange, moment_of("--from", first), moment_of("--to", last), limit), settings_of_tables()
    with closing(TableReader.open_reader(settings, "trades")) as reader, Engine.of(settings) as engine:
        answer = newest_trades(reader, engine, wanted)
    _say(answer.rows, answer.receipt, form, answer.note)


@app.command()
def quotes(symbol: Symbol = None, exchange: Exchange = None, first: From = None, last: To = None, limit: Newest = 20, form: Form = "table") -> None:
    """The newest best bids and asks."""
    from k2stream.moment import moment_of
    from k2stream.query import latest

    start, end = moment_of("--from", first), moment_of("--to", last)
    _answer(
        "quotes", form, lambda engine, files, of: latest.quotes(engine, files, symbol=symbol, exchange=of, start=start, end=end, limit=limit), exchange, symbol
    )


@app.command()
def instruments(
    symbol: Symbol = None,
    exchange: Exchange = None,
    listed: Annotated[bool, typer.Option("--listed", help="Without those whose listing ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
    form: Form = "table",
) -> None:
    """What is known of instruments, the delisted included."""
    from k2stream.query import latest

    _answer(
        "instruments",
        form,
        lambda engine, files, of: latest.instruments(engine, files, symbol=symbol, exchange=of, only_listed=listed, limit=limit),
        exchange,
        symbol,
    )


@app.command()
def across(
    pairs: Annotated[list[str], typer.Argument(metavar="PAIR...", help="BASE/QUOTE, as in BTC/USD; several for several.")],
    first: From = None,
    last: To = None,
    limit: Newest = 20,
    form: Form = "table",
) -> None:
    """The newest trades of a pair on all venues, side by side; config/symbols.yaml says what each venue calls it."""
    from k2stream.moment import moment_of
    from k2stream.query import across as pairs_of
    from k2stream.settings import load_settings
    from k2stream.symbols import listed_as, listings

    start, end = moment_of("--from", first), moment_of("--to", last)
    names = [(str(listed.pair), listed.exchange, listed.symbol) for listed in listed_as(listings(load_settings()), pairs)]
    _answer("trades", form, lambda engine, files, _: pairs_of.across(engine, files, names, start=start, end=end, limit=limit))


@app.command()
def feeds(exchange: Exchange = None, form: Form = "table") -> None:
    """Trades by topic and feed: whose report came first, which filled gaps, how many came twice."""
    from k2stream.answers import receipt_of
    from k2stream.lake.reader import TableReader
    from k2stream.query import feeds as feeds_of
    from k2stream.query.engine import Engine
    from k2stream.query.names import exchange_in
    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    with (
        closing(TableReader.open_reader(settings, "trades")) as reader,
        closing(TableReader.open_reader(settings, "gaps")) as gaps,
        Engine.of(settings) as engine,
    ):
        head, events = reader.head(), gaps.load().current_snapshot()
        files = [] if head.snapshot_id is None else reader.files(head.snapshot_id)
        asked = exchange_in(engine, files, exchange)
        rows = feeds_of.feeds(engine, files, [] if events is None else gaps.files(events.snapshot_id), head.vector, exchange=asked.exchange)
    _say(rows, receipt_of(reader, head, files), form, asked.note)


def _answer(
    table: str, form: FORMS, ask: "Callable[[Engine, Sequence[TableFile], str | None], pa.Table]", exchange: str | None = None, symbol: str | None = None
) -> None:
    """Ask the newest snapshot of a table; `ask` gets the exchange as the table has it."""
    from k2stream.answers import receipt_of
    from k2stream.lake.reader import TableReader
    from k2stream.query.engine import Engine
    from k2stream.query.names import exchange_in, unknown_symbol
    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    with closing(TableReader.open_reader(settings, table)) as reader, Engine.of(settings) as engine:
        head = reader.head()
        files = [] if head.snapshot_id is None else reader.files(head.snapshot_id)
        asked = exchange_in(engine, files, exchange)
        rows = ask(engine, files, asked.exchange)
        note = asked.note or ("" if rows.num_rows else unknown_symbol(engine, files, symbol, asked.exchange))
    _say(rows, receipt_of(reader, head, files), form, note)


def _say(rows: "pa.Table", receipt: "Receipt", form: FORMS, note: str = "") -> None:
    from k2stream.query.format import as_text

    typer.echo(as_text(rows, form), nl=False)
    typer.echo(receipt.line(), err=True)
    if note:
        typer.echo(note, err=True)
