"""A schema registry that speaks Confluent's protocol: franz-go's srfake. It plays what it was told again when it starts."""

from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.certificate import Certificate
from k2stream.dev.service import Service, ask, versions
from k2stream.settings import Settings


class Registry(Service):
    """Without a password unless one is given; the default compatibility is BACKWARD."""

    name = "registry"

    def __init__(self, folder: Path, settings: Settings, *, authorization: str = "", tls: Certificate | None = None) -> None:
        """`authorization` is the whole header that it asks for, as in `Bearer TOKEN`."""
        super().__init__(folder, settings)
        self.binary = self.cache / f"registry-{versions()['REGISTRY']}" / "registry"
        self._authorization, self._tls = authorization, tls

    def lacks(self) -> str:
        return "" if self.binary.exists() else f"the schema registry {self.binary}"

    def prepare(self) -> None:
        """It reads nothing that is not there already."""

    def command(self) -> list[str]:
        tls = ["-cert", str(self._tls.certificate), "-key", str(self._tls.key)] if self._tls else []
        return [str(self.binary), "-keep", str(self.folder / "told.jsonl"), *tls, self.address]

    def environment(self) -> Mapping[str, str]:
        return {"REGISTRY_AUTHORIZATION": self._authorization}

    def answers(self) -> bool:
        return ask(self.port, b"GET /subjects HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 ")  # 401 and "this is TLS" are answers too

    def exports(self) -> Mapping[str, str]:
        return {"K2_REGISTRY_URL": f"{'https' if self._tls else 'http'}://{self.address}"}
