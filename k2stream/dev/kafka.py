"""A Kafka broker, one node in KRaft mode, from the jars in the cache, on loopback only: without a password, or with TLS and passwords."""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.dev.service import HOST, Service, ask, versions
from k2stream.errors import ServiceError
from k2stream.settings import Settings
from k2stream.worker_process import free_port

CLUSTER_ID = "azJzdHJlYW0tZGV2LWthZg"
"""16 bytes in URL-safe base64, as the format asks."""

TOOL_SECONDS = 60.0

# Recorded ticks are years old, so nothing expires by age. A rebalance does not wait for more members, the cleaner
# and retention run often: tests wait for them.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners={listeners},CONTROLLER://{host}:{controller_port}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
inter.broker.listener.name={inter_broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,MUTUAL:SSL
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

# Every mechanism that K2_BROKER_SASL_MECHANISM knows; and certificates of both sides.
SECURE_PROPERTIES = """\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mutual.ssl.client.auth=required
listener.name.password.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.password.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.password.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
USER = "k2"

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
        (self.folder / "server.properties").write_text(self.properties(data), encoding="utf-8")
        if not (data / "meta.properties").exists():
            self._format()

    def properties(self, data: Path) -> str:
        """What `server.properties` says."""
        plain = f"PLAINTEXT://{self.address}"
        return PROPERTIES.format(host=HOST, listeners=plain, inter_broker="PLAINTEXT", controller_port=free_port(), data=data)

    def users(self) -> list[str]:
        """Arguments that make users while the storage is formatted."""
        return []

    def _format(self) -> None:
        self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties", *self.users())

    def _run(self, tool: str, *arguments: str) -> None:
        command = [*self._java(), tool, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)  # noqa: S603 # ours
        if done.returncode:
            raise ServiceError(f"kafka in {self.folder}: {tool} failed: {done.stderr.strip() or done.stdout.strip()}")

    def command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", "server.properties"]

    def _java(self) -> list[str]:
        # Native parts of the codecs are unpacked into java.io.tmpdir: they go with the folder.
        return ["java", *JVM, f"-Djava.io.tmpdir={self.folder / 'tmp'}", "-cp", f"{self.jars}/*"]

    def answers(self) -> bool:
        return ask(self.port, API_VERSIONS)[4:10] == struct.pack(">ih", 1, 0)

    def exports(self) -> Mapping[str, str]:
        return {"K2_BROKER": f"k2kafka://{self.address}"}


class SecureKafka(Kafka):
    """A broker that serves whoever knows a password (at `address`) or has a certificate (at `mutual_address`), over TLS only.

    Its own traffic goes over a third port of loopback, in plain.
    """

    plain_port = mutual_port = 0

    @property
    def mutual_address(self) -> str:
        """Where it asks for a certificate of the client instead of a password."""
        return f"{HOST}:{self.mutual_port}"

    @property
    def certificate(self) -> Certificate:
        """Its own, which clients may show, too: the authority signed no other."""
        folder = self.folder / "tls"
        return Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")

    def properties(self, data: Path) -> str:
        if not self.certificate.certificate.exists():
            make_certificate(self.folder / "tls")
        keystore = self.folder / "tls" / "keystore.pem"
        keystore.write_text(self.certificate.key.read_text("ascii") + self.certificate.certificate.read_text("ascii"), "ascii")
        self.plain_port, self.mutual_port = free_port(), free_port()
        listeners = f"PASSWORD://{self.address},MUTUAL://{self.mutual_address},PLAINTEXT://{HOST}:{self.plain_port}"
        common = PROPERTIES.format(host=HOST, listeners=listeners, inter_broker="PLAINTEXT", controller_port=free_port(), data=data)
        return common + SECURE_PROPERTIES.format(keystore=keystore, authority=self.certificate.authority, user=USER, password=self.secret())

    def set_password(self, user: str, password: str) -> None:
        """Make the user where there is none; at once, while it runs."""
        told = ["--add-config", f"SCRAM-SHA-512=[password={password}]", "--entity-type", "users", "--entity-name", user]
        self._run("kafka.admin.ConfigCommand", "--bootstrap-server", f"{HOST}:{self.plain_port}", "--alter", *told)

    def users(self) -> list[str]:
        return [part for n in (256, 512) for part in ("--add-scram", f"SCRAM-SHA-{n}=[name={USER},password={self.secret()}]")]

    def answers(self) -> bool:
        return ask(self.plain_port, API_VERSIONS)[4:10] == struct.pack(">ih", 1, 0)

    def exports(self) -> Mapping[str, str]:
        access = {"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": USER, "PASSWORD": self.secret(), "CA_FILE": str(self.certificate.authority)}
        return {**super().exports(), **{f"K2_BROKER_{name}": value for name, value in access.items()}}
