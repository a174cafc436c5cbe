"""A broker that serves nobody without a password or a certificate: every client of ours gets through, and who does not is told why."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from k2stream.checkout import find_root
from k2stream.clock import Deadline
from k2stream.dev.certificate import make_certificate
from k2stream.dev.kafka import USER, SecureKafka
from k2stream.doctor import examine
from k2stream.errors import TransportError
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.ends import ends_of
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_on, read_topics
from k2stream.transport.sink import LogSink
from k2stream.worker_process import WorkerProcess
from tests.integration.transport_site import KafkaSite, Worker, numbered, running, values

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]
PASSWORD = "never to be seen"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker of this module's own."""
    with SecureKafka(tmp_path_factory.mktemp("secure"), Settings()) as started:
        yield started


@pytest.fixture
def access(broker: SecureKafka) -> dict[str, Any]:
    """Settings that it serves."""
    return {name.removeprefix("K2_").lower(): value for name, value in broker.exports().items()}


class SecureSite(KafkaSite):
    """The broker as whoever has these settings sees it."""

    def __init__(self, home: Path, access: dict[str, Any]) -> None:
        self.access = access
        self.settings = Settings(home=home, **access)
        self.url = self.settings.broker_url()
        self.sink: LogSink = open_sink(self.settings)  # type: ignore[assignment] # KafkaSite knows its kind


@pytest.fixture
async def site(tmp_path: Path, access: dict[str, Any]) -> AsyncIterator[SecureSite]:
    """What a user with the password may do."""
    made = SecureSite(tmp_path, access)
    yield made
    await made.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_every_client_gets_through_with_a_password(tmp_path: Path, access: dict[str, Any], mechanism: str) -> None:
    """Sink, consumer, Faust's producer and the reader of audits: records go all the way round over TLS, whatever tells the password."""
    site = SecureSite(tmp_path, {**access, "broker_sasl_mechanism": mechanism})
    events, tp = await site.topic(), TopicPartition(await site.topic(), 0)
    await numbered(site, tp, [3, 2])
    await site.sink.send(events, 0, values("a", "a", "b"))
    worker = Worker(site, tmp_path, [tp.topic], **site.access)
    table = worker.app.Table("counts", default=int, partitions=1)

    async def count(stream: Any) -> None:
        async for event in stream.events():
            table[event.value.decode()] += 1

    worker.app.agent(worker.app.topic(events, value_type=bytes, value_serializer="raw"), name="count")(count)
    async with running(worker):
        await worker.until_read(tp, 5)
        await worker.until(lambda: dict(table) == {"a": 2, "b": 1}, "the table was not filled")
        worker.ack()
        await worker.consumer.commit()
    found = await asyncio.to_thread(lambda: [list(read_topics(site.settings, [tp.topic])), list(read_on(site.settings, {tp: 3}))])
    ends = await asyncio.to_thread(ends_of, site.settings, [tp.topic, f"{worker.group}-counts-changelog"])
    await site.close()

    assert [int(v or b"") for v in worker.values(tp)] == [0, 1, 2, 3, 4]
    assert [[r.offset for r in records] for records in found] == [[0, 1, 2, 3, 4], [3, 4]]
    assert sorted(ends.values()) == [3, 5]


async def test_certificate_instead_of_a_password(tmp_path: Path, broker: SecureKafka) -> None:
    """Where Kafka asks for a certificate, ours and its key are shown; without them the sentence names the setting."""
    tls = {"broker": f"k2kafka://{broker.mutual_address}", "broker_security_protocol": "SSL", "broker_ca_file": str(broker.certificate.authority)}
    own = {"broker_cert_file": str(broker.certificate.certificate), "broker_key_file": str(broker.certificate.key)}
    site = SecureSite(tmp_path, tls | own)
    tp = TopicPartition(await site.topic(), 0)
    await numbered(site, tp, [2])
    async with running(Worker(site, tmp_path, [tp.topic], **site.access)) as worker:
        await worker.until_read(tp, 2)
    await site.close()
    with pytest.raises(TransportError, match="K2_BROKER_CERT_FILE"):
        await ask(tmp_path, tls)


async def ask(home: Path, access: dict[str, Any]) -> None:
    """A question to a broker that will not answer it."""
    sink = open_sink(Settings(home=home, **access))
    try:
        await sink.topics()
    finally:
        await sink.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"broker_password": PASSWORD}, "refuses K2_BROKER_USERNAME=k2 with this K2_BROKER_PASSWORD"),
        ({"broker_password": PASSWORD, "broker_sasl_mechanism": "PLAIN"}, "refuses K2_BROKER_USERNAME=k2 with this K2_BROKER_PASSWORD"),
        ({"broker_ca_file": ""}, "K2_BROKER_CA_FILE names the authority"),
        ({"broker_ca_file": "another"}, "K2_BROKER_CA_FILE names the authority"),
        ({"broker_security_protocol": "SASL_PLAINTEXT", "broker_ca_file": ""}, "is K2_BROKER_SECURITY_PROTOCOL=SASL_PLAINTEXT what this port speaks"),
        ({"broker": "k2kafka://127.0.0.1:1"}, "is it running, and is the address right"),
    ],
)
async def test_refusal_names_the_setting_that_mends_it(tmp_path: Path, access: dict[str, Any], change: dict[str, Any], says: str) -> None:
    """A broker that closes a connection says little: within seconds we say which setting it did not like, and never the password."""
    if change.get("broker_ca_file"):
        change = {"broker_ca_file": str(make_certificate(tmp_path / "another").authority)}
    deadline = Deadline.after(7)
    with pytest.raises(TransportError, match=says) as refused:
        await ask(tmp_path, access | change)

    assert not deadline.is_over()
    assert refused.value.is_retriable
    assert PASSWORD not in str(refused.value)


def test_doctor_says_what_the_broker_says(tmp_path: Path, access: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentence before a worker is started, and no secret among the settings."""
    monkeypatch.setenv("K2_HOME", str(tmp_path))
    for name, value in access.items():
        monkeypatch.setenv(f"K2_{name.upper()}", value)
    well = {f.what: f for f in examine()}
    monkeypatch.setenv("K2_BROKER_PASSWORD", PASSWORD)
    ill = {f.what: f for f in examine()}

    assert well["log"].verdict == "ok", well["log"].says
    assert (ill["log"].verdict, "K2_BROKER_PASSWORD" in ill["log"].says) == ("wrong", True)
    assert not [f for f in ill.values() if PASSWORD in f.says]


def health(worker: WorkerProcess) -> str:
    """What `/healthz` says, green or red; empty while the page does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/healthz", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        return exc.read().decode()
    except OSError:
        return ""


def until(is_so: Callable[[], bool], worker: WorkerProcess, seconds: float = 180) -> None:
    deadline = Deadline.after(seconds)
    while not is_so():
        assert not deadline.is_over(), f"{health(worker)}\n{worker.last_lines(20)}"
        assert worker.exit_code() is None, worker.last_lines(20)


def test_worker_waits_red_until_the_broker_knows_its_user(tmp_path: Path, broker: SecureKafka) -> None:
    """A wrong password is no crash: the broker may be mended. Red says why, nothing says the password, and it starts by itself."""
    environment = {**broker.exports(), "K2_BROKER_USERNAME": "newcomer", "K2_BROKER_PASSWORD": PASSWORD, "K2_STATE": "memory", "K2_APP_ID": "waits"}
    assert environment["K2_BROKER_USERNAME"] != USER
    log_path = tmp_path / "worker.log"
    with WorkerProcess(home=tmp_path / "home", root=find_root(), log_path=log_path, environment=environment) as worker:
        until(lambda: "refuses K2_BROKER_USERNAME=newcomer" in health(worker), worker)
        shown = health(worker) + str(worker.state())
        broker.set_password("newcomer", PASSWORD)
        until(lambda: bool((worker.state() or {}).get("started")) and "refuses" not in health(worker), worker)
        shown += health(worker) + str(worker.state())

    with suppress(FileNotFoundError):
        shown += log_path.read_text(encoding="utf-8")
    assert PASSWORD not in shown
