"""`k2 upkeep`: small files merged, old snapshots and files let go, retention, and what the settings lead to."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from k2stream.settings import Settings
    from k2stream.upkeep.tasks import Report, Upkeep

EXIT_POSTPONED = 1
NICE = 10

app = typer.Typer(help="Keep the tables healthy; workers may go on meanwhile.", no_args_is_help=True)

Table = Annotated[str | None, typer.Option(help="Only this table, as in trades.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def compact(
    table: Table = None,
    full_tiers_only: Annotated[bool, typer.Option("--full-tiers", help="As the agent does it: leave small files of days that still grow.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make large files of small ones; every row is compared before they are swapped."""
    _each(table, as_json, lambda upkeep, name: upkeep.compact(name, is_whole=not full_tiers_only, is_dry=dry_run))


@app.command()
def expire(table: Table = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let go of snapshots beyond K2_SNAPSHOTS_KEPT and K2_SNAPSHOT_AGE_MS, but never of pinned ones."""
    _each(table, as_json, lambda upkeep, name: upkeep.expire(name, is_dry=dry_run))


@app.command()
def orphans(table: Table = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Delete files that nothing has named for K2_UNNAMED_MS and that are older than K2_ORPHAN_AGE_MS."""
    _each(table, as_json, lambda upkeep, name: upkeep.orphans(name, is_dry=dry_run))


@app.command()
def retention(
    table: Table = None,
    days: Annotated[int | None, typer.Option(min=1, help="Keep so many days of --table; without it K2_KEEP_DAYS says.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take out whole days that are past their time; the ledger counts their rows as retired."""
    from k2stream.errors import SettingsError
    from k2stream.upkeep.tasks import keep_days_of

    settings = _settings()
    keep = keep_days_of(settings)
    if days is not None and table is None:
        raise SettingsError("--days needs --table: data types are kept for different times.")
    named = keep if table is None else {table: days or keep[table]} if days or table in keep else {}
    if not named:
        raise SettingsError("Nothing says how long days are kept: set K2_KEEP_DAYS, as in trades=365,quotes=30, or use --table and --days.")
    with _upkeep(settings) as upkeep:
        cut = [upkeep.retain(upkeep.tables(name)[0], kept, is_dry=dry_run) for name, kept in named.items()]
        others = [name for name in upkeep.tables() if name not in named] if table is None else []
        _tell([*cut, *(upkeep.keep(name, is_dry=dry_run) for name in others)], as_json)


@app.command()
def run(
    dry_run: DryRun = False,
    as_json: AsJson = False,
    lead: Annotated[bool, typer.Option("--lead", help="Only if no other process of this group does it or did it within K2_UPKEEP_MS.")] = False,
    child: Annotated[bool, typer.Option("--child", hidden=True, help="Give way to the parent and end with it.")] = False,
) -> None:
    """All of it on every table, as the upkeep agent does every K2_UPKEEP_MS."""
    from k2stream.process import serve_parent
    from k2stream.upkeep.lead import leading
    from k2stream.upkeep.status import healths_of
    from k2stream.upkeep.tasks import run_all

    if child:
        serve_parent(NICE)
    settings = _settings()
    with leading(settings, is_asked=lead) as is_ours:
        if not is_ours:
            typer.echo(json.dumps({"led": False}) if as_json else "Another process does it, or did so just now.")
            return
        with _upkeep(settings) as upkeep:
            reports = run_all(upkeep, settings, is_dry=dry_run)
            names = [report.table for report in reports if report.task == "compact"] if as_json else ()
            tables = healths_of(map(upkeep.committer, names), settings.compact_target_bytes)
            _tell(reports, as_json, tables=[health.as_json() for health in tables])


@app.command()
def status(table: Table = None, as_json: AsJson = False) -> None:
    """Files, bytes, snapshots and planning time of each table."""
    from k2stream.upkeep.status import health_of

    settings = _settings()
    with _upkeep(settings) as upkeep:
        found = [health_of(upkeep.committer(name), settings.compact_target_bytes) for name in upkeep.tables(table)]
    typer.echo(json.dumps([health.as_json() for health in found], indent=2) if as_json else "\n".join(health.line() for health in found))


@app.command()
def forecast(
    table: Annotated[str, typer.Option(help="Table whose newest windows say what arrives.")] = "trades",
    rows: Annotated[float | None, typer.Option(min=0, help="Rows a second, instead of what arrives now.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers that commit to the table.")] = None,
    as_json: AsJson = False,
) -> None:
    """Files a day, their sizes, commits and freshness under the present settings; and better ones."""
    from k2stream.errors import SettingsError
    from k2stream.upkeep.forecast import Flow, Knobs, suggested
    from k2stream.upkeep.forecast import forecast as forecast_of
    from k2stream.upkeep.status import flow_of

    settings = _settings()
    with _upkeep(settings) as upkeep:
        seen = flow_of(upkeep.committer(table)) if table in upkeep.tables() else None
    if seen is None and rows is None:
        raise SettingsError(f"{table} has no two windows to tell what arrives. Say it: --rows 10000.")
    base = seen or Flow(0, 64, 1, 1)
    flow = Flow(base.rows_a_second if rows is None else rows, base.bytes_a_row, base.partitions_a_window, workers or base.workers)
    knobs = Knobs(settings.window_ms, settings.window_rows, settings.upkeep_ms, settings.compact_target_bytes)
    now, (_, says) = forecast_of(flow, knobs), suggested(flow, knobs)
    if as_json:
        typer.echo(json.dumps({"forecast": now.as_json(), "suggestions": list(says)}, indent=2))
        return
    typer.echo(
        f"{flow.rows_a_second:,.0f} rows a second of {flow.bytes_a_row:,.0f} bytes, {flow.workers} workers, {flow.partitions_a_window:.1f} files a window"
    )
    typer.echo(f"commits a second      {now.commits_a_second:,.2f}\nrows can be asked for {now.fresh_seconds:,.1f} s after they came, at most")
    typer.echo(f"files a day           {now.files_a_day:,.0f} of {now.file_bytes / 1024:,.0f} kB, {now.bytes_a_day / (1 << 30):,.2f} GB")
    typer.echo(f"after compaction      {now.files_kept_a_day:,.0f} a day; {now.small_files_between_runs:,.0f} small ones come between two runs")
    typer.echo("\n".join(f"better: {sentence}" for sentence in says) or "Nothing to better.")


@app.command()
def pin(
    snapshot_id: Annotated[int, typer.Argument(help="As a receipt names it.")],
    table: Annotated[str, typer.Option(help="Its table.")] = "trades",
    hours: Annotated[float, typer.Option("--hours", min=0.01, help="Keep it for so long.")] = 24.0,
) -> None:
    """Keep a snapshot and its files, so that an answer can be asked for again."""
    with _upkeep(_settings()) as upkeep:
        (name,) = upkeep.tables(table)
        pinned = upkeep.pin(name, snapshot_id, seconds=hours * 3600)
    typer.echo(f"Snapshot {snapshot_id} of {table} stays for {hours:g} h at least: tag {pinned.name}.")


@app.command()
def unpin(
    snapshot_id: Annotated[int, typer.Argument(help="A pinned snapshot.")],
    table: Annotated[str, typer.Option(help="Its table.")] = "trades",
) -> None:
    """Let go of a pin before its time."""
    from k2stream.lake.pins import PREFIX

    with _upkeep(_settings()) as upkeep:
        upkeep.unpin(upkeep.tables(table)[0], f"{PREFIX}{snapshot_id}")
    typer.echo(f"Snapshot {snapshot_id} of {table} may expire.")


def _each(table: str | None, as_json: bool, task: "Callable[[Upkeep, str], Report]") -> None:
    with _upkeep(_settings()) as upkeep:
        _tell([task(upkeep, name) for name in upkeep.tables(table)], as_json)


def _tell(reports: "list[Report]", as_json: bool, **more: object) -> None:
    if as_json:
        said: dict[str, Any] = {"led": True, "reports": [report.as_json() for report in reports], **more}
        typer.echo(json.dumps(said, indent=2))
    else:
        typer.echo("\n".join(line for report in reports for line in report.lines()))
    if any(report.trouble for report in reports):
        raise typer.Exit(EXIT_POSTPONED)


def _settings() -> "Settings":
    from k2stream.home import Home
    from k2stream.settings import load_settings

    settings = load_settings()
    Home.open(settings.home)
    return settings


@contextmanager
def _upkeep(settings: "Settings") -> "Iterator[Upkeep]":
    from k2stream.crash import on_step_of
    from k2stream.upkeep.lead import turns_of
    from k2stream.upkeep.tasks import Upkeep

    with turns_of(settings) as turn, closing(Upkeep(settings, on_step=on_step_of(settings.crash_at), turn=turn)) as upkeep:
        yield upkeep
