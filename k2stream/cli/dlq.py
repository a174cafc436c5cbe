"""`k2 dlq`: dead letters, chosen, looked at, mended, sent back, put aside."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from k2stream.deadletter.standing import DeadLetters
    from k2stream.query.letters import Selection
    from k2stream.settings import Settings

app = typer.Typer(help="Dead letters: records that could not become a row.", no_args_is_help=True)

Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only this reason (`k2 dlq reasons` lists them); may be given again.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only letters of this topic; `*` stands for anything.")]
Symbols = Annotated[list[str] | None, typer.Option("--symbol", help="Only records with this key; may be given again.")]
First = Annotated[str | None, typer.Option("--from", help="Record's own time from this on, ISO 8601; UTC unless it says otherwise.")]
Last = Annotated[str | None, typer.Option("--to", help="Before this time.")]
States = Annotated[list[str] | None, typer.Option("--state", help="open, under_way, superseded, parked or file; may be given again.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this record, as `list` shows it; may be given again.")]
Form = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Whole texts in csv and json.")]
OneId = Annotated[str, typer.Argument(metavar="ID", help="TOPIC/PARTITION/OFFSET of the record that died first, as `list` shows it.")]

SHOWN = ("id", "attempt", "reason", "state", "symbol", "first_seen", "text")


@app.command("list")
def list_letters(
    reason: Reasons = None,
    topic: Topic = None,
    symbol: Symbols = None,
    first: First = None,
    last: Last = None,
    state: States = None,
    ids: Ids = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    form: Form = "table",
) -> None:
    """One line a record that died, with its newest reason and where it stands."""
    from k2stream.query.format import as_text

    with _opened() as letters:
        found = letters.chosen(_selection(reason, topic, symbol, first, last, ids, state, limit))
        if found is None:
            typer.echo("There are no dead letters.", err=True)
            return
        found = found if form == "table" else letters.sized(found)
    typer.echo(as_text(found.select(SHOWN) if form == "table" else found, form), nl=False)


@app.command()
def show(record: OneId) -> None:
    """Everything of one record: why it died, its bytes and headers, what was done about it."""
    from k2stream.deadletter.show import story

    with _opened() as letters:
        typer.echo("\n".join(story(letters, record)))


@app.command()
def histogram(topic: Topic = None, symbol: Symbols = None, first: First = None, last: Last = None, form: Form = "table") -> None:
    """How many letters there are, by reason and state."""
    from k2stream.query.format import as_text
    from k2stream.query.letters import histogram as counted

    with _opened() as letters:
        found = letters.chosen(_selection(None, topic, symbol, first, last, None, None, None))
        if found is None:
            typer.echo("There are no dead letters.", err=True)
            return
        typer.echo(as_text(counted(letters.engine, found), form), nl=False)


@app.command()
def reasons() -> None:
    """Every reason that a letter can have: what it says, what usually causes it, what to do."""
    from k2stream.deadletter.reasons import REASONS

    for reason, known in REASONS.items():
        typer.echo(f"{reason.value}\n  {known.says}\n  usually: {known.cause}\n  do: {known.remedy}\n")


@app.command()
def replay(
    reason: Reasons = None,
    topic: Topic = None,
    symbol: Symbols = None,
    first: First = None,
    last: Last = None,
    ids: Ids = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many letters at most.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Send them back; without it nothing is.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing, whatever else is said: what happens without --publish.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Letters a second; without it K2_REPLAY_RATE.")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for what becomes of them.")] = 60.0,
    live: Annotated[bool, typer.Option("--live", help="Run the replay agent: `faust -A agents.replay worker`.")] = False,
) -> None:
    """Send open letters back to their topics; without --publish it only says what would become of them."""
    if live:
        _run_agent()
        return
    chosen = _selection(reason, topic, symbol, first, last, ids, None, limit)
    if dry_run or not publish:
        from k2stream.deadletter.show import rehearsal_lines

        with _opened() as letters:
            typer.echo("\n".join(rehearsal_lines(letters, chosen)))
        return
    from k2stream.deadletter.run import replay_now, replayed_lines

    settings = _settings()
    done = replay_now(settings, chosen, rate=rate or settings.replay_rate, wait_seconds=wait)
    typer.echo("\n".join(replayed_lines(done)))


@app.command()
def edit(
    record: OneId,
    field: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Another value of one field; may be given again.")] = None,
    value_file: Annotated[Path | None, typer.Option("--value-file", help="The whole value, byte for byte, from a file.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Another key.")] = None,
) -> None:
    """Mend one record for its next replay; the letter itself stays as it is."""
    from k2stream.deadletter.edit import edited, edited_bytes

    with _opened() as letters:
        if value_file is not None:
            edited_bytes(letters, record, value_file.read_bytes(), key=None if key is None else key.encode())
        else:
            edited(letters, record, dict(_pair(text) for text in field or []), key=None if key is None else key.encode())
    typer.echo(f"{record} will be replayed as edited. See what would become of it: k2 dlq replay --id {record}")


@app.command()
def park(
    records: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
    release: Annotated[bool, typer.Option("--release", help="Let them be replayed again instead.")] = False,
    why: Annotated[str | None, typer.Option(help="A word for the trail.")] = None,
) -> None:
    """Put records aside: no replay takes them until they are released."""
    from k2stream.deadletter.edit import put_aside

    with _opened() as letters:
        put_aside(letters, records, is_released=release, why=why)
    typer.echo(f"{len(records)} {'released' if release else 'parked'}.")


@app.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="A file; without it stdout.")] = None,
    reason: Reasons = None,
    topic: Topic = None,
    symbol: Symbols = None,
    first: First = None,
    last: Last = None,
    state: States = None,
    ids: Ids = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
) -> None:
    """Whole letters as JSON, one a line, bytes in base64: the form that they have in their topic."""
    from k2stream.deadletter.envelope import encode_letter

    with _opened() as letters:
        found = letters.chosen(_selection(reason, topic, symbol, first, last, ids, state, limit))
        origins = [] if found is None else found["origin"].to_pylist()
        with out.open("wb") if out else nullcontext(sys.stdout.buffer) as stream:
            for start in range(0, len(origins), 2_000):
                stream.writelines(encode_letter(letter) + b"\n" for letter in letters.whole(origins[start : start + 2_000]))
    typer.echo(f"{len(origins):,} letters.", err=True)


@app.command()
def trail(limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50, form: Form = "table") -> None:
    """What was done with letters, by whom, and what became of each, oldest first."""
    from k2stream.query.format import as_text

    with _opened() as letters:
        found = letters.trail()
    typer.echo(as_text(found.slice(max(0, found.num_rows - limit)).drop_columns(["key", "value", "replay_id"]), form), nl=False)


def _settings() -> "Settings":
    from k2stream.settings import load_settings

    settings = load_settings()
    path = settings.home_path("catalog.db")
    if not settings.catalog_uri and not path.exists():
        from k2stream.errors import QueryError

        raise QueryError(f"There are no tables yet: {path} does not exist. Run `k2 demo` or `k2 worker` first, or set K2_HOME.")
    return settings


def _opened() -> "DeadLetters":
    from k2stream.deadletter.standing import DeadLetters

    return DeadLetters(_settings())


def _selection(
    reason: list[str] | None,
    topic: str | None,
    symbol: list[str] | None,
    first: str | None,
    last: str | None,
    ids: list[str] | None,
    state: list[str] | None,
    limit: int | None,
) -> "Selection":
    from k2stream.moment import moment_of
    from k2stream.query.letters import Selection, State
    from k2stream.verdict import Reason

    for text in reason or []:
        _one_of(text, [r.value for r in Reason], "--reason")
    states = [State(_one_of(text, [s.value for s in State], "--state")) for text in state or []]
    return Selection(reason or [], topic, symbol or [], moment_of("--from", first), moment_of("--to", last), ids or [], states, limit)


def _one_of(text: str, known: list[str], option: str) -> str:
    if text not in known:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(known)}", param_hint=option)
    return text


def _pair(text: str) -> tuple[str, object]:
    """FIELD=VALUE; a value is JSON where it can be read as that, else text."""
    name, is_pair, value = text.partition("=")
    if not is_pair or not name:
        raise typer.BadParameter(f"expected FIELD=VALUE, found {text!r}", param_hint="--set")
    try:
        return name, json.loads(value, parse_float=str)
    except json.JSONDecodeError:
        return name, value


def _run_agent() -> None:
    import os

    from k2stream.checkout import find_root
    from k2stream.settings import load_settings, process_environment

    settings, root = load_settings(), find_root()
    os.chdir(root)
    environment = process_environment() | {"K2_HOME": str(settings.home.absolute())}
    os.execve(sys.executable, [sys.executable, "-m", "faust", "-A", "agents.replay", "worker", "-l", settings.log_level], environment)  # noqa: S606 # our own interpreter, constant arguments
