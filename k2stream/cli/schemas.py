"""`k2 schemas`: versions of a subject, listed, compared, checked and registered."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from k2stream.decode.registry import Registry
    from k2stream.rows import AvroSchema
    from k2stream.settings import Settings

EXIT_REFUSED = 1

app = typer.Typer(help="Schemas of the topics' records, and how they change.", no_args_is_help=True)

Subject = Annotated[str, typer.Argument(help="As in market.crypto.trades-value.")]
File = Annotated[Path | None, typer.Argument(metavar="[FILE.avsc]", help="Without it the schema that k2stream ships.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("list")
def list_(subject: Annotated[str, typer.Argument(help="Only this subject.")] = "", as_json: AsJson = False) -> None:
    """Every subject with its versions, their ids and how many fields they have."""
    _, registry = _opened()
    found = [
        {"subject": name, "version": v.number, "id": v.schema_id, "fields": len(v.schema.get("fields", ())), "is_contract": _is_contract(name, v.schema)}
        for name in ([subject] if subject else registry.subjects())
        for v in registry.versions(name)
    ]
    lines = [f"{f['subject']}  version {f['version']}  id {f['id']}  {f['fields']} fields{'  as shipped' if f['is_contract'] else ''}" for f in found]
    _say(found, lines or ["No subject yet."], as_json=as_json)


@app.command()
def diff(
    subject: Subject,
    older: Annotated[int | None, typer.Argument(help="Version to compare with; without it the schema that k2stream ships.")] = None,
    newer: Annotated[int | None, typer.Argument(help="Without it the newest version.")] = None,
    table: Annotated[bool, typer.Option("--table", help="With the columns of the table instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """How the newest version of a subject differs from the shipped schema, from an older version, or from the table's columns."""
    from k2stream.decode.compatibility import differences
    from k2stream.subjects import columns_of, contract_of, differences_from_table, version_of

    settings, registry = _opened()
    schema = version_of(registry, subject, newer)
    if table:
        lines = differences_from_table(schema, subject, columns_of(settings, subject))
    else:
        lines = differences(schema, contract_of(subject) if older is None else version_of(registry, subject, older))
    _say(lines, lines or ["No difference."], as_json=as_json)


@app.command()
def check(subject: Subject, file: File = None, as_json: AsJson = False) -> None:
    """Say whether a schema may be a subject's next version, and which fields stand in the way; exit code 1 if it may not. Changes nothing."""
    from k2stream.subjects import columns_of, objections

    settings, registry = _opened()
    found = objections(registry, subject, _schema(subject, file), columns_of(settings, subject))
    _say({"subject": subject, "compatible": not found, "objections": found}, found or [f"It may be the next version of {subject}."], as_json=as_json)
    raise typer.Exit(EXIT_REFUSED if found else 0)


@app.command()
def register(subject: Subject, file: File = None, as_json: AsJson = False) -> None:
    """Check a schema and register it; done twice it changes nothing the second time."""
    from k2stream import subjects

    settings, registry = _opened()
    schema_id = subjects.register(settings, registry, subject, _schema(subject, file))
    _say({"subject": subject, "id": schema_id}, [f"{subject}: id {schema_id}"], as_json=as_json)


def _opened() -> "tuple[Settings, Registry]":
    from k2stream.decode.registry import open_registry
    from k2stream.home import Home
    from k2stream.settings import load_settings

    settings = load_settings()
    Home.open(settings.home)
    return settings, open_registry(settings)


def _schema(subject: str, file: Path | None) -> "AvroSchema":
    from k2stream.subjects import contract_of, schema_in

    return contract_of(subject) if file is None else schema_in(file)


def _is_contract(subject: str, schema: "AvroSchema") -> bool:
    from k2stream.errors import RegistryError
    from k2stream.subjects import contract_of

    try:
        return contract_of(subject) == schema
    except RegistryError:
        return False


def _say(found: object, lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
