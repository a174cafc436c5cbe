"""A Kafka broker, one node in KRaft mode, from the jars in the cache; without a password, on loopback only."""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import HOST, Service, ask, versions
from k2stream.errors import ServiceError
from k2stream.settings import Settings
from k2stream.worker_process import free_port

CLUSTER_ID = "azJzdHJlYW0tZGV2LWthZg"
"""16 bytes in URL-safe base64, as the format asks."""

FORMAT_SECONDS = 60.0

# Recorded ticks are years old, so nothing expires by age. A rebalance does not wait for more members, the cleaner
# and retention run often: tests wait for them.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.ms=-1
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=200
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=2097152
"""

# A small heap and the first compiler only: up in seconds, and enough for 100,000s of records a second.
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")

API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The request of key 18, version 0, correlation id 1, no client id: a broker answers it once it serves clients."""


class Kafka(Service):
    """Its data outlives a stop; topics must be created."""

    name = "kafka"
    start_seconds = 60.0

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.jars = self.cache / f"kafka-{versions()['KAFKA']}"

    def lacks(self) -> str:
        if shutil.which("java") is None:
            return "java"
        return "" if (self.jars / "complete").exists() else f"the jars of Kafka in {self.jars}"

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)
        data = self.folder / "data"
        text = PROPERTIES.format(host=HOST, port=self.port, controller_port=free_port(), data=data)
        (self.folder / "server.properties").write_text(text, encoding="utf-8")
        if not (data / "meta.properties").exists():
            self._format()

    def _format(self) -> None:
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False)  # noqa: S603 # constant
        if done.returncode:
            raise ServiceError(f"kafka cannot format {self.folder / 'data'}: {done.stderr.strip() or done.stdout.strip()}")

    def command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", "server.properties"]

    def _java(self) -> list[str]:
        # Native parts of the codecs are unpacked into java.io.tmpdir: they go with the folder.
        return ["java", *JVM, f"-Djava.io.tmpdir={self.folder / 'tmp'}", "-cp", f"{self.jars}/*"]

    def answers(self) -> bool:
        return ask(self.port, API_VERSIONS)[4:10] == struct.pack(">ih", 1, 0)

    def exports(self) -> Mapping[str, str]:
        return {"K2_BROKER": f"k2kafka://{self.address}"}
