"""The command line `k2`: thin commands; what they do is in the modules that they import when they run."""

import os
import sys
from typing import Annotated

import typer

from k2stream.cli.api import api
from k2stream.cli.backfill import backfill
from k2stream.cli.dev import app as dev_app
from k2stream.cli.dlq import app as dlq_app
from k2stream.cli.feed import app as feed_app
from k2stream.cli.gaps import app as gaps_app
from k2stream.cli.load import load
from k2stream.cli.query import app as query_app
from k2stream.cli.schemas import app as schemas_app
from k2stream.cli.topics import app as topics_app
from k2stream.cli.upkeep import app as upkeep_app
from k2stream.errors import K2Error
from k2stream.logs import log_to_stderr

EXIT_WRONG = 1


app = typer.Typer(
    name="k2",
    help="Market data, captured exactly once: from the exchange to Apache Iceberg.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(feed_app, name="feed")
app.add_typer(query_app, name="query")
app.add_typer(gaps_app, name="gaps")
app.add_typer(dlq_app, name="dlq")
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(upkeep_app, name="upkeep")
app.add_typer(dev_app, name="dev")
for command in (api, backfill, load):
    app.command()(command)


@app.command()
def demo(
    faults: Annotated[bool, typer.Option("--faults", help="Inject a known mix of faults and set found beside injected.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses the faults.")] = 1,
    headless: Annotated[bool, typer.Option("--headless", help="No live progress; for logs and CI.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove what k2 made under K2_HOME first.")] = False,
    rows: Annotated[int | None, typer.Option(min=1, help="Play so many ticks only.")] = None,
) -> None:
    """Play real ticks through the whole path and show what came of them."""
    from k2stream import demo as main_job
    from k2stream.settings import load_settings

    raise typer.Exit(main_job.run(load_settings(), faults=faults, seed=seed, headless=headless, fresh=fresh, rows=rows))


@app.command()
def worker() -> None:
    """Run the agents until stopped: `faust -A agents worker -l info` in the checkout."""
    from k2stream.checkout import find_root
    from k2stream.home import Home
    from k2stream.settings import load_settings, process_environment
    from k2stream.web.port import require_free

    settings, root = load_settings(), find_root()
    home = Home.open(settings.home)
    home.hold().close()  # says so now if a reset runs; the agents' process holds it from its own start
    require_free(settings.web_host, settings.web_port)
    environment = process_environment() | {"K2_HOME": str(home.path)}
    sys.stdout.flush()
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", "faust", "-A", "agents", "worker", "-l", settings.log_level], environment)  # noqa: S606 # our own interpreter, constant arguments


@app.command()
def audit(as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """Prove the ledger from the table's own rows and the letters; exit code 1 if it does not add up."""
    import json

    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    from k2stream.audit import audit_lake
    from k2stream.deadletter.kept import letters_dropped, origins_of_letters

    report = audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings))
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(report.lines()))
    raise typer.Exit(0 if report.balanced else EXIT_WRONG)


@app.command()
def doctor() -> None:
    """Say what is configured, what answers, what is wrong and how to mend it; changes nothing."""
    from k2stream.doctor import examine, is_well

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.verdict:5}  {finding.what:{width}}  {finding.says}")
    raise typer.Exit(0 if is_well(findings) else EXIT_WRONG)


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove what k2 made under K2_HOME, and nothing else; refused while a worker runs there."""
    from k2stream.home import Home
    from k2stream.settings import load_settings

    home = Home.find(load_settings().home)
    if home is None or not home.made():
        typer.echo("Nothing to remove.")
        return
    if not yes:
        typer.confirm(f"Remove {', '.join(home.made())} from {home.path}?", abort=True)
    typer.echo(f"Removed from {home.path}: {', '.join(home.reset())}.")


@app.command()
def adopt(
    table: Annotated[str, typer.Option(help="Table without a reachable offset vector.")] = "trades",
    lost: Annotated[bool, typer.Option("--lost", help="Accept instead that the log lost offsets before they were read.")] = False,
    group: Annotated[bool, typer.Option("--group", help="Hand the table instead to the group of K2_APP_ID; stop the other group's workers first.")] = False,
) -> None:
    """Give a table that lost its offset vector a new one, taken from its rows; begins a new count."""
    from k2stream.settings import settings_of_tables

    settings = settings_of_tables()
    from k2stream.clock import Deadline
    from k2stream.lake.adopt import accept_loss, adopt_group, adopt_table
    from k2stream.transport.ends import begins_of

    deadline = Deadline.after(settings.commit_timeout_ms / 1000)
    if group:
        before = adopt_group(settings, table, deadline)
        typer.echo(f"{settings.namespace}.{table} belongs to group {settings.app_id} now" + (f", before to {before}." if before else "."))
        return
    if lost:
        given_up = accept_loss(settings, table, begins_of(settings), deadline)
        for tp, (first, last) in sorted(given_up.items()):
            typer.echo(f"{tp.topic}/{tp.partition}: offsets {first:,} to {last:,} are given up; its ledger counts from {last + 1:,}")
        typer.echo("" if given_up else "Nothing is lost: the log holds every offset that the table asks for.", nl=not given_up)
        return
    head = adopt_table(settings, table, deadline)
    typer.echo(f"{settings.namespace}.{table} has a vector again, in snapshot {head.snapshot_id}; its ledger counts from there:")
    for tp, entry in sorted(head.vector.items()):
        typer.echo(f"  {tp.topic}/{tp.partition} is read on from offset {entry.next:,}")


@app.command()
def chaos(
    minutes: Annotated[float, typer.Option(min=0.0, help="Play faults for so long; the one under way is finished.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, help="... or so many; 0: no bound.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses the order, the victims and the trades.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Workers of this run.")] = 4,
    rate: Annotated[int, typer.Option(min=1, help="Records published a second.")] = 400,
    away: Annotated[float, typer.Option(min=0.0, help="Seconds that the broker is gone.")] = 60.0,
    only: Annotated[list[str] | None, typer.Option(help="Only this fault; may be given again.")] = None,
    i_own_this: Annotated[list[str] | None, typer.Option(help="A service that may be broken although `k2 dev` did not start it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The scorecard as JSON, for programs.")] = False,
) -> None:
    """Break everything around workers on a table and a topic of their own, and prove that nothing is lost or doubled."""
    import json

    from k2stream.chaos.run import Options, run
    from k2stream.settings import load_settings

    options = Options(
        seed=seed,
        workers=workers,
        rate=rate,
        seconds=60 * minutes,
        faults=faults,
        away_seconds=away,
        only=tuple(only or ()),
        owned=tuple(i_own_this or ()),
    )
    card = run(load_settings(), options, say=lambda line: typer.echo(line, err=True))
    typer.echo(json.dumps(card.as_json(), indent=2) if as_json else "\n".join(card.lines()))
    raise typer.Exit(0 if card.is_good else EXIT_WRONG)


def main() -> None:
    """What `k2` calls: our own errors end it with one sentence on stderr and exit code 1, never with a traceback."""
    os.umask(0o077)  # what a home holds is the user's alone, whoever makes it first
    log_to_stderr()
    try:
        app()
    except K2Error as exc:
        typer.echo(f"k2: {exc}", err=True)
        sys.exit(EXIT_WRONG)
    except BrokenPipeError:  # `k2 query trades | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_WRONG)

