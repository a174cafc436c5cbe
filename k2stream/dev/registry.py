"""A schema registry that speaks Confluent's protocol: franz-go's srfake. Schemas live in its memory and end with it."""

from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import Service, ask, versions
from k2stream.settings import Settings


class Registry(Service):
    """Without a password; the default compatibility is BACKWARD."""

    name = "registry"

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.binary = self.cache / f"registry-{versions()['REGISTRY']}" / "registry"

    def lacks(self) -> str:
        return "" if self.binary.exists() else f"the schema registry {self.binary}"

    def prepare(self) -> None:
        """It reads nothing."""

    def command(self) -> list[str]:
        return [str(self.binary), self.address]

    def answers(self) -> bool:
        return b" 200 " in ask(self.port, b"GET /subjects HTTP/1.0\r\n\r\n")

    def exports(self) -> Mapping[str, str]:
        return {"K2_REGISTRY_URL": f"http://{self.address}"}
