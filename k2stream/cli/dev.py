"""`k2 dev`: real servers on this machine."""

from typing import Annotated

import typer

from k2stream.errors import ServiceError

app = typer.Typer(help="Real servers on this machine, for development.", no_args_is_help=True)

ServiceNames = Annotated[list[str] | None, typer.Argument(metavar="[SERVICES]...", help="kafka, postgres, s3, rest, registry, redis; all if none is named.")]
UsualNames = Annotated[list[str] | None, typer.Argument(metavar="[SERVICES]...", help="The same; all but rest if none is named.")]


@app.command()
def up(services: UsualNames = None) -> None:
    """Start servers on free loopback ports, data under K2_HOME/dev; prints the variables to export."""
    from k2stream.dev.services import USUAL
    from k2stream.dev.stack import Stack
    from k2stream.settings import load_settings

    names, stack = _services_named(services or list(USUAL)), Stack(load_settings())
    if lacking := stack.lacking(names):
        missing = "; ".join(f"{name} needs {what}" for name, what in lacking.items())
        raise ServiceError(f"{missing}. In the checkout, `make services S='{' '.join(lacking)}'` mends it; nothing was started.")
    for name in names:
        running = stack.up(name)
        typer.echo(f"{name} answers on {running.address}", err=True)
        for variable, value in running.exports.items():
            typer.echo(f"export {variable}={value}")


@app.command()
def down(services: ServiceNames = None) -> None:
    """Stop what `k2 dev up` started; the data stays until `k2 reset`."""
    from k2stream.dev.stack import Stack
    from k2stream.settings import load_settings

    stack = Stack(load_settings())
    for name in _services_named(services):
        if stack.down(name):
            typer.echo(f"{name} stopped")


@app.command()
def status() -> None:
    """Say which servers run, where, and what the others lack."""
    from k2stream.dev.services import SERVICES
    from k2stream.dev.stack import Stack
    from k2stream.settings import load_settings

    stack = Stack(load_settings())
    lacking = stack.lacking(list(SERVICES))
    for name in SERVICES:
        running = stack.running(name)
        lacks = f"stopped; needs {lacking[name]}: make services S={name}" if name in lacking else "stopped"
        typer.echo(f"{name:9} {f'answers on {running.address}' if running else lacks}")


def _services_named(given: list[str] | None) -> list[str]:
    from k2stream.dev.services import SERVICES

    if unknown := sorted(set(given or ()) - set(SERVICES)):
        raise ServiceError(f"{', '.join(unknown)}: no such service; there are {', '.join(SERVICES)}.")
    return [name for name in SERVICES if not given or name in given]
