"""`k2 query across`: a pair on all venues, whatever each of them calls it."""

from typing import Annotated, Literal

import typer


def across(
    pairs: Annotated[list[str], typer.Argument(metavar="PAIR...", help="BASE/QUOTE, as in BTC/USD; several for several.")],
    first: Annotated[str | None, typer.Option("--from", help="From this time on, ISO 8601; UTC unless it says otherwise.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="As in query trades.")] = "table",
) -> None:
    """The newest trades of a pair on all venues, side by side; config/symbols.yaml says what each venue calls it."""
    from contextlib import closing

    from k2stream.lake.reader import TableReader
    from k2stream.moment import moment_of
    from k2stream.query.across import across as ask
    from k2stream.query.engine import Engine
    from k2stream.query.format import as_text
    from k2stream.query.receipt import Receipt
    from k2stream.settings import load_settings
    from k2stream.symbols import listed_as, listings

    start, end, settings = moment_of("--from", first), moment_of("--to", last), load_settings()
    names = [(str(listed.pair), listed.exchange, listed.symbol) for listed in listed_as(listings(settings), pairs)]
    with closing(TableReader.open_reader(settings, "trades")) as reader, Engine.of(settings) as engine:
        head = reader.head()
        files = [] if head.snapshot_id is None else reader.files(head.snapshot_id)
        answer = ask(engine, files, names, start=start, end=end, limit=limit)
    receipt = Receipt.of(f"{settings.namespace}.trades", snapshot_id=head.snapshot_id, vector=head.vector, watermark_us=head.watermark_us, files=len(files))
    typer.echo(as_text(answer, form), nl=False)
    typer.echo(receipt.line(), err=True)
