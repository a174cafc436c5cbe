"""`k2 query feeds`: which of a venue's redundant feeds saved what."""

from typing import Annotated, Literal

import typer


def feeds(
    exchange: Annotated[str | None, typer.Option(help="Only this exchange, as in BINANCE.")] = None,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="As in query trades.")] = "table",
) -> None:
    """Trades by topic and feed: whose report came first, which filled gaps, how many came twice."""
    from contextlib import closing

    from k2stream.lake.reader import TableReader
    from k2stream.query.engine import Engine
    from k2stream.query.feeds import feeds as ask
    from k2stream.query.format import as_text
    from k2stream.query.receipt import Receipt
    from k2stream.settings import load_settings

    settings = load_settings()
    with (
        closing(TableReader.open_reader(settings, "trades")) as trades,
        closing(TableReader.open_reader(settings, "gaps")) as gaps,
        Engine.of(settings) as engine,
    ):
        head, events = trades.head(), gaps.load().current_snapshot()
        files = [] if head.snapshot_id is None else trades.files(head.snapshot_id)
        answer = ask(engine, files, [] if events is None else gaps.files(events.snapshot_id), head.vector, exchange=exchange)
    receipt = Receipt.of(f"{settings.namespace}.trades", snapshot_id=head.snapshot_id, vector=head.vector, watermark_us=head.watermark_us, files=len(files))
    typer.echo(as_text(answer, form), nl=False)
    typer.echo(receipt.line(), err=True)
