"""`k2 query quotes` and `k2 query instruments`."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from k2stream.query.engine import Engine
    from k2stream.table_file import TableFile

Symbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol, as in BHP.")]
Exchange = Annotated[str | None, typer.Option("--exchange", help="Only this exchange, as in ASX.")]
Form = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Decimals and times are whole in csv and json.")]


def query_quotes(
    symbol: Symbol = None,
    exchange: Exchange = None,
    first: Annotated[str | None, typer.Option("--from", help="From this time on, ISO 8601; UTC unless it says otherwise.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    form: Form = "table",
) -> None:
    """The newest best bids and asks; what the answer rests on goes to stderr."""
    from k2stream.moment import moment_of
    from k2stream.query.latest import quotes

    start, end = moment_of("--from", first), moment_of("--to", last)
    _answer("quotes", form, lambda engine, files: quotes(engine, files, symbol=symbol, exchange=exchange, start=start, end=end, limit=limit))


def query_instruments(
    symbol: Symbol = None,
    exchange: Exchange = None,
    listed: Annotated[bool, typer.Option("--listed", help="Without those whose listing ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
    form: Form = "table",
) -> None:
    """What is known of instruments, the delisted included; what the answer rests on goes to stderr."""
    from k2stream.query.latest import instruments

    _answer("instruments", form, lambda engine, files: instruments(engine, files, symbol=symbol, exchange=exchange, only_listed=listed, limit=limit))


def _answer(table: str, form: Literal["table", "csv", "json"], ask: "Callable[[Engine, Sequence[TableFile]], pa.Table]") -> None:
    from k2stream.lake.reader import TableReader
    from k2stream.query.engine import Engine
    from k2stream.query.format import as_text
    from k2stream.query.receipt import Receipt
    from k2stream.settings import load_settings

    settings = load_settings()
    with closing(TableReader.open_reader(settings, table)) as reader, Engine.of(settings) as engine:
        head = reader.head()
        files = [] if head.snapshot_id is None else reader.files(head.snapshot_id)
        rows = ask(engine, files)
    receipt = Receipt.of(".".join(reader.name), snapshot_id=head.snapshot_id, vector=head.vector, watermark_us=head.watermark_us, files=len(files))
    typer.echo(as_text(rows, form), nl=False)
    typer.echo(receipt.line(), err=True)
