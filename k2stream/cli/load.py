"""`k2 load`: the rows of a CSV or Parquet file into a topic."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from k2stream.load.run import Summary, Wanted
    from k2stream.settings import Settings

DATA_TYPES = {"trades": "trades", "quotes": "quotes", "instruments": "reference_data"}

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV, also packed as .gz, .xz, .bz2, .zst or .zip, or Parquet (.parquet).")]


def load(
    what: Annotated[Literal["trades", "quotes", "instruments"], typer.Argument(metavar="trades|quotes|instruments")],
    file: File,
    mapping: Annotated[Path | None, typer.Option(help="YAML: which column becomes which field; config/mappings holds examples.")] = None,
    exchange: Annotated[str, typer.Option(help="Whose rows they are, as in asx.")] = "",
    asset_class: Annotated[Literal["", "equities", "crypto"], typer.Option(help="equities or crypto.")] = "",
    constants: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Same in all rows, as symbol=BHP; may be given again.")] = None,
    rate: Annotated[float, typer.Option(min=0.0, help="Rows a second at most; 0: no bound.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check every row; publish nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="From the first row, whatever was loaded before.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Write rejected rows into this CSV file too, with line and reason.")] = None,
    print_mapping: Annotated[bool, typer.Option("--print-mapping", help="Draft a mapping from the file's columns, and do nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON, for programs.")] = False,
) -> None:
    """Publish a file's rows, each once however often it is interrupted; rows that cannot be are dead letters with file and line."""
    if print_mapping:
        typer.echo(_draft(DATA_TYPES[what], file), nl=False)
        return
    from k2stream.home import Home
    from k2stream.settings import load_settings

    wanted = _wanted(DATA_TYPES[what], file, mapping, exchange, asset_class, constants or [], rate=rate, dry_run=dry_run, again=again, rejects=rejects)
    settings = load_settings()
    if not dry_run:
        Home.open(settings.home)
    summary = _load(settings, wanted)
    typer.echo(json.dumps(summary.as_json(), indent=2) if as_json else "\n".join(summary.lines()))


def _wanted(
    data_type: str,
    file: Path,
    mapping: Path | None,
    exchange: str,
    asset_class: str,
    constants: list[str],
    *,
    rate: float,
    dry_run: bool,
    again: bool,
    rejects: Path | None,
) -> "Wanted":
    from k2stream.load.mapping import read_mapping
    from k2stream.load.run import Wanted
    from k2stream.topics import TopicName

    if mapping is None:
        raise typer.BadParameter("expected a mapping; `--print-mapping` drafts one from the file", param_hint="--mapping")
    if not exchange or exchange.startswith("-") or not exchange.replace("-", "").replace("_", "").isalnum():
        raise typer.BadParameter(f"expected an exchange as topics name it, as in asx, found {exchange!r}", param_hint="--exchange")
    if not asset_class:
        raise typer.BadParameter("expected equities or crypto", param_hint="--asset-class")
    pairs = [word.partition("=") for word in constants]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        raise typer.BadParameter(f"expected FIELD=VALUE, found {wrong[0]!r}", param_hint="--set")
    fields = read_mapping(mapping, data_type, constants={name: value for name, _, value in pairs})
    return Wanted(file, fields, TopicName(asset_class, data_type, exchange.lower()), rate=rate, dry_run=dry_run, again=again, rejects=rejects)


def _load(settings: "Settings", wanted: "Wanted") -> "Summary":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from k2stream.load.run import Told, load_file

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(wanted.path.name, total=None)
        told = Told(size=lambda size: bar.update(task, total=size), done=lambda done: bar.update(task, completed=done))
        return load_file(settings, wanted, told)


def _draft(data_type: str, file: Path) -> str:
    from contextlib import closing

    from k2stream.load.chunk import Place
    from k2stream.load.guess import drafted
    from k2stream.load.mapping import FieldMapping, FileForm
    from k2stream.load.run import open_rows

    with closing(open_rows(file, FieldMapping(data_type, FileForm(), {}, {}))) as rows:
        first = next(rows.chunks(Place()), None)
        return drafted(data_type, rows.column_names, {} if first is None else _sample(first.columns))


def _sample(columns: "pa.Table") -> dict[str, str]:
    """The first row as text."""
    from k2stream.load.fields import texts

    first = zip(columns.column_names, columns.slice(0, 1).columns, strict=True)
    return {name: texts(column.chunk(0), ())[0][0].as_py() or "" for name, column in first if len(column)}
