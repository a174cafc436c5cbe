"""`k2 gaps`: which sequence numbers are missing, what lies around a hole, and a person's word that one is accepted."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from k2stream.gap_ledger import Gap
    from k2stream.query.gaps import GapFilter
    from k2stream.settings import Settings

app = typer.Typer(help="What is missing, and why.", no_args_is_help=True)

Symbol = Annotated[str | None, typer.Option(help="Only this symbol, as in BHP.")]
Exchange = Annotated[str | None, typer.Option(help="Only this exchange, as in ASX; case does not count.")]
DataType = Annotated[str | None, typer.Option("--data-type", help="Only this data type: trades or quotes.")]
First = Annotated[str | None, typer.Option("--from", help="Holes that reach beyond this event time, ISO 8601; UTC unless it says otherwise.")]
Last = Annotated[str | None, typer.Option("--to", help="Holes that begin before this time.")]
Cause = Annotated[Literal["feed_reconnect", "dead_letter", "topic_loss", "upstream"] | None, typer.Option(help="Only of this cause.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Beginning of the gap's id.")]

LISTED = ("gap_id", "exchange", "symbol", "state", "cause", "first_sequence", "last_sequence", "size", "missing", "after", "before", "age")
AROUND = ("timestamp", "source_sequence", "price", "quantity", "bid_price", "ask_price", "topic", "partition", "offset")
HAPPENED = ("kind", "missing", "timestamp", "topic", "partition", "offset", "written_at", "waived_by", "waived_because")
ID_CHARACTERS = 8
SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


@app.command("list")
def list_gaps(
    symbol: Symbol = None,
    exchange: Exchange = None,
    data_type: DataType = None,
    first: First = None,
    last: Last = None,
    cause: Cause = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only open, shrunk, filled or waived ones; may be given again. Without it those of which something is missing."),
    ] = None,
    all_states: Annotated[bool, typer.Option("--all", help="Of every state.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    as_json: Json = False,
) -> None:
    """Gaps with their cause, size, what is missing still, and how long that is known."""
    from k2stream import gap_ledger
    from k2stream.query.format import as_json as to_json
    from k2stream.query.format import as_table
    from k2stream.query.gaps import OWING, State
    from k2stream.settings import settings_of_tables

    if unknown := sorted(set(state or ()) - set(State)):
        raise typer.BadParameter(f"expected {', '.join(State)}, found {', '.join(unknown)}", param_hint="--state")
    states = None if all_states else tuple(State(s) for s in state) if state else OWING
    settings = settings_of_tables()
    wanted = _filter(symbol, _exchange(settings, exchange, *([data_type] if data_type else ["trades", "quotes"])), data_type, first, last, cause, states=states)
    found = gap_ledger.list_gaps(settings, wanted)
    shown = _aged(found.slice(max(0, found.num_rows - limit)))
    if as_json:
        typer.echo(to_json(shown), nl=False)
        return
    short = [id[:ID_CHARACTERS] for id in shown["gap_id"].to_pylist()]
    typer.echo(as_table(shown.select(LISTED).set_column(0, "gap_id", [short])), nl=False)
    missing = sum(shown["missing"].to_pylist())
    typer.echo(f"{missing:,} numbers missing in {shown.num_rows:,} of {found.num_rows:,} gaps.", err=True)


@app.command()
def show(id: Id, rows: Annotated[int, typer.Option(min=1, help="So many on each side of the hole.")] = 3, as_json: Json = False) -> None:
    """One gap: what happened to it, and the rows before, in and after the hole."""
    import json

    from k2stream import gap_ledger
    from k2stream.query.format import as_json as to_json
    from k2stream.query.format import as_table
    from k2stream.settings import settings_of_tables

    story = gap_ledger.show_gap(settings_of_tables(), id, rows=rows)
    gap, around = _table_of([story.gap]), story.rows
    if as_json:
        parts = {"gap": json.loads(to_json(_aged(gap)))[0], "events": json.loads(to_json(story.events)), "rows": json.loads(to_json(around))}
        typer.echo(json.dumps(parts, indent=2, ensure_ascii=False))
        return
    for name, value in json.loads(to_json(_aged(gap)))[0].items():
        if value is not None:
            typer.echo(f"{name:15} {value}")
    typer.echo("\n" + as_table(story.events.select(HAPPENED)))
    typer.echo(as_table(around.select([name for name in AROUND if name in around.column_names])), nl=False)


@app.command()
def waive(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Beginnings of the gaps' ids.")],
    because: Annotated[str, typer.Option(help="Why what is missing is accepted.")],
    by: Annotated[str, typer.Option(help="Who says so; without it the user of this machine.")] = "",
    as_json: Json = False,
) -> None:
    """Accept that what is missing of a gap does not come; kept with who, when and why. Done twice it is said once, and a later fill still counts."""
    import getpass
    import json

    from k2stream import gap_ledger
    from k2stream.clock import Deadline
    from k2stream.query.gaps import GapFilter
    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    chosen = [gap_ledger.show_gap(settings, id, rows=1).gap["gap_id"] for id in ids]
    for gap_id in chosen:
        deadline = Deadline.after(settings.commit_timeout_ms / 1000)
        done = gap_ledger.waive(settings, GapFilter(id=gap_id), by=by or getpass.getuser(), because=because, deadline=deadline)
        for gap in done.gaps:
            if as_json:
                typer.echo(json.dumps({"gap_id": gap["gap_id"], "missing": gap["missing"], "is_new": bool(done.said)}))
            else:
                typer.echo(f"{_name(gap)}: {gap['missing']:,} missing numbers are waived" + ("." if done.said else " already."))


@app.command("completeness")
def completeness_of(
    interval: Annotated[str, typer.Option(help="Length of an interval: 10s, 5min, 1h or 1d.")] = "1d",
    symbol: Symbol = None,
    exchange: Exchange = None,
    data_type: Annotated[Literal["trades", "quotes"], typer.Option("--data-type", help="Of which table.")] = "trades",
    first: Annotated[str | None, typer.Option("--from", help="From this event time on.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Before this time.")] = None,
    holes: Annotated[bool, typer.Option("--holes", help="Only intervals that are not complete.")] = False,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Times are whole in csv and json.")] = "table",
) -> None:
    """Per symbol and interval: rows expected, received, missing, late, double, and whether any hole reaches into it."""
    import pyarrow.compute as pc

    from k2stream import gap_ledger
    from k2stream.moment import moment_of
    from k2stream.query.format import as_text
    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    found = gap_ledger.how_complete(
        settings,
        interval_seconds=_seconds(interval),
        data_type=data_type,
        symbol=symbol,
        exchange=_exchange(settings, exchange, data_type),
        start=moment_of("--from", first),
        end=moment_of("--to", last),
    )
    typer.echo(as_text(found.filter(pc.invert(found["is_complete"])) if holes else found, form), nl=False)


def _seconds(interval: str) -> int:
    number = interval.rstrip("adhimns")
    unit = interval[len(number) :]
    if not number.isdecimal() or not int(number) or unit not in SECONDS:
        raise typer.BadParameter(f"expected a whole number and one of {', '.join(SECONDS)}, as in 5min, found {interval}", param_hint="--interval")
    return int(number) * SECONDS[unit]


def _exchange(settings: "Settings", exchange: str | None, *data_types: str) -> str | None:
    """As the tables have it; what no row has is said on stderr."""
    from k2stream import gap_ledger

    asked = gap_ledger.exchange_asked(settings, exchange, *data_types)
    if asked.note:
        typer.echo(asked.note, err=True)
    return asked.exchange


def _filter(
    symbol: str | None, exchange: str | None, data_type: str | None, first: str | None, last: str | None, cause: str | None, **values: Any
) -> "GapFilter":
    from k2stream.moment import moment_of
    from k2stream.query.gaps import GapFilter

    return GapFilter(exchange, symbol, data_type, moment_of("--from", first), moment_of("--to", last), cause=cause, **values)


def _aged(gaps: "pa.Table") -> "pa.Table":
    """With one column more: how long each is known, in words."""
    from k2stream.clock import SystemClock
    from k2stream.query.gaps import age_seconds

    now_us = SystemClock().now_us()
    return gaps.append_column("age", [[_span(age_seconds(gap, now_us)) for gap in gaps.to_pylist()]])


def _table_of(gaps: "list[Gap]") -> "pa.Table":
    import pyarrow as pa

    from k2stream.query.gaps import GAPS

    return pa.Table.from_pylist(gaps, schema=GAPS)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _name(gap: "Gap") -> str:
    return f"{gap['gap_id'][:ID_CHARACTERS]} {gap['exchange']} {gap['symbol']} {gap['first_sequence']}-{gap['last_sequence']}"
