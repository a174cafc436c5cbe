"""`k2 topics`: what the log lacks of the declared topics, shown and mended."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from k2stream.settings import Settings
    from k2stream.topics.plan import Plan

EXIT_DIFFERENT = 1

app = typer.Typer(help="Topics as a file declares them.", no_args_is_help=True)

File = Annotated[str, typer.Option("--file", help="Declares the topics; without it K2_TOPICS_FILE, else config/topics.yaml.")]
Delete = Annotated[bool, typer.Option("--delete", help="Delete market and dlq topics that nobody declares.")]


@app.command()
def plan(file: File = "", delete: Delete = False) -> None:
    """Say what `apply` would do; changes nothing."""
    typer.echo("\n".join(_plan(_settings(file), delete=delete).lines()))


@app.command()
def diff(file: File = "") -> None:
    """Say what is not as declared; exit code 1 if anything is not."""
    differences = _plan(_settings(file), delete=False).differences
    for difference in differences:
        typer.echo(difference.line())
    raise typer.Exit(EXIT_DIFFERENT if differences else 0)


@app.command()
def apply(
    file: File = "",
    delete: Delete = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As `plan`.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a topic is deleted.")] = False,
) -> None:
    """Create topics, let them grow, set their settings; done twice it changes nothing the second time."""
    from k2stream.home import Home
    from k2stream.topics import admin
    from k2stream.topics.plan import Action

    settings = _settings(file)
    found = _plan(settings, delete=delete)
    typer.echo("\n".join(found.lines()))
    if dry_run or not found.steps:
        return
    Home.open(settings.home)
    doomed = [step.topic for step in found.steps if step.action is Action.DELETE]
    if doomed and not yes:
        typer.confirm(f"Delete {', '.join(doomed)} and every record in them?", abort=True)
    admin.apply(settings, found.steps, told=lambda step: typer.echo(f"done: {step.action} {step.topic}"))


@app.command()
def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Topic to copy.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Topic to copy it into; made as declared if it does not exist.")],
    file: File = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied; change nothing.")] = False,
) -> None:
    """Copy a topic's records into another, each once, and compare the two; if it is interrupted, run it again."""
    from k2stream.crash import on_step_of
    from k2stream.home import Home
    from k2stream.topics.files import declared_topic
    from k2stream.topics.migration import Migration

    settings = _settings(file)
    Home.open(settings.home)
    with Migration(settings, source, declared_topic(settings, target), on_step=on_step_of(settings.crash_at)) as migration:
        course = migration.planned()
        for partition, (begin, end) in enumerate(course.spans):
            typer.echo(f"{source}/{partition}: offsets {begin:,} to {end:,}")
        typer.echo(f"into {target} with {len(course.target_ends)} partitions; on from {source}/{course.partition} offset {course.offset:,}")
        if dry_run:
            return
        outcome = migration.run(told=lambda records: typer.echo(f"copied {records:,}", err=True))
    typer.echo(f"{outcome.records:,} records in both, checksum {outcome.checksum}.")
    typer.echo("Run it again for what feeds write meanwhile; then stop them, run it once more, and start feeds and workers on the new topic.")


def _settings(file: str) -> "Settings":
    from k2stream.settings import load_settings

    settings = load_settings()
    return settings.model_copy(update={"topics_file": file}) if file else settings


def _plan(settings: "Settings", *, delete: bool) -> "Plan":
    from k2stream.topics.admin import plan_for
    from k2stream.topics.files import declared_topics

    return plan_for(settings, declared_topics(settings), delete=delete)
