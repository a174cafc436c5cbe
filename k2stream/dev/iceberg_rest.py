"""Apache Iceberg's reference REST catalog over a JDBC catalog in SQLite; without a password, its tables on this disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import HOST, Service, ask, versions
from k2stream.settings import Settings

JVM = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


class IcebergRest(Service):
    """Names the tables' places itself, below `warehouse/`; writes their metadata there, as the user who runs it."""

    name = "rest"
    start_seconds = 60.0

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.jars = self.cache / f"iceberg-rest-{versions()['ICEBERG']}"

    def lacks(self) -> str:
        if shutil.which("java") is None:
            return "java"
        return "" if (self.jars / "complete").exists() else f"the jars of Iceberg's REST catalog in {self.jars}"

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        # SQLite's native part is unpacked into java.io.tmpdir: it goes with the folder.
        java = ["java", *JVM, f"-Djava.io.tmpdir={self.folder / 'tmp'}", "-cp", f"{self.jars}:{self.jars}/*"]
        return [*java, "IcebergRest", HOST, str(self.port), str(self.folder)]

    def answers(self) -> bool:
        return b" 200 " in ask(self.port, b"GET /v1/config HTTP/1.0\r\n\r\n")

    def exports(self) -> Mapping[str, str]:
        return {"K2_CATALOG_URI": f"http://{self.address}"}
