"""The registry as a server: what is really set on it, who it lets in, and an outage that costs time and nothing else."""

import json
import os
import signal
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from k2stream.chaos.http_proxy import Effect, Fault, HttpProxy
from k2stream.decode.registry import HttpRegistry, open_registry
from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.dev.registry import Registry as RegistryServer
from k2stream.dev.service import Service
from k2stream.errors import RegistryError, RegistryUnavailable, SettingsError
from k2stream.feed import recorded
from k2stream.playback import prepare_topics, publish, recorded_trades
from k2stream.rows import AvroSchema, avro_schema
from k2stream.settings import Settings
from tests.consistency.harness import SMALL_WINDOWS, Site
from tests.services.watching import START_SECONDS, causes_of, is_well, rows_of, until

pytestmark = pytest.mark.registry

SECRET = "tr0ub4dor"
SUBJECT = "market.crypto.trades-value"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "registry", Settings()) as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def url_of(server: Service) -> str:
    return server.exports()["K2_REGISTRY_URL"]


def asked(server: Service, path: str) -> object:
    """What the server itself says, without any client of ours."""
    with urllib.request.urlopen(f"{url_of(server)}{path}") as answer:
        return json.loads(answer.read())


def grown(**field: object) -> AvroSchema:
    """trade_v2 with one more field."""
    schema = deepcopy(avro_schema("trade_v2"))
    schema["fields"].append({"name": "venue_code", "type": "string", **field})
    return schema


# --- subjects and compatibility ----------------------------------------------------------------------------


def test_exchanges_of_an_asset_class_share_one_guarded_subject(server: RegistryServer, tmp_path: Path) -> None:
    """Two topics, one subject, one id; its level is set on the subject itself, whatever the registry's default becomes."""
    settings = Settings(home=tmp_path / "k2", registry_url=url_of(server), partitions=1)
    topics = [f"market.crypto.trades.{exchange}" for exchange in ("binance", "kraken")]
    ids = prepare_topics(settings, [*topics, "market.equities.trades.asx"])

    assert asked(server, "/subjects") == [SUBJECT, "market.equities.trades-value"]
    assert len(set(ids.values())) == 1
    assert asked(server, f"/subjects/{SUBJECT}/versions") == [1]
    for subject in (SUBJECT, "market.equities.trades-value"):
        assert asked(server, f"/config/{subject}?defaultToGlobal=false") == {"compatibilityLevel": "BACKWARD"}


def test_a_stricter_level_is_left_alone(server: RegistryServer) -> None:
    """Whoever chose FULL meant it."""
    body = urllib.request.Request(f"{url_of(server)}/config/{SUBJECT}", json.dumps({"compatibility": "FULL"}).encode(), method="PUT")
    urllib.request.urlopen(body).close()
    HttpRegistry(url_of(server)).register(SUBJECT, avro_schema("trade_v2"))
    assert asked(server, f"/config/{SUBJECT}?defaultToGlobal=false") == {"compatibilityLevel": "FULL"}


def test_a_version_that_cannot_read_its_forerunner_is_refused_by_field(server: RegistryServer) -> None:
    """The registry keeps the versions that it had; a compatible one is welcome and gets an id of its own."""
    registry = HttpRegistry(url_of(server))
    first = registry.register(SUBJECT, avro_schema("trade_v2"))
    with pytest.raises(RegistryError, match=r"market\.crypto\.trades-value.*TradeV2\.venue_code is new and has no default"):
        registry.register(SUBJECT, grown())
    assert asked(server, f"/subjects/{SUBJECT}/versions") == [1]
    second = registry.register(SUBJECT, grown(default=""))
    assert second != first
    assert HttpRegistry(url_of(server)).register(SUBJECT, avro_schema("trade_v2")) == first


def test_a_subject_tells_its_versions(server: RegistryServer) -> None:
    """All of them, oldest first, each with its schema; the server is asked of each whether a next one is compatible."""
    registry = HttpRegistry(url_of(server))
    registry.register(SUBJECT, avro_schema("trade_v2"))
    registry.register(SUBJECT, grown(default=""))
    assert registry.subjects() == [SUBJECT]
    assert [(v.number, v.schema == avro_schema("trade_v2")) for v in registry.versions(SUBJECT)] == [(1, True), (2, False)]
    assert registry.refusals(SUBJECT, grown(default="")) == []
    assert registry.refusals("market.equities.trades-value", grown()) == []


def test_a_schema_that_is_not_avro_is_an_unknown_id(server: RegistryServer) -> None:
    """A record that names a protobuf schema is a bad record, not an outage that stops its partition for ever."""
    body = json.dumps({"schema": 'syntax = "proto3"; message M {}', "schemaType": "PROTOBUF"}).encode()
    request = urllib.request.Request(f"{url_of(server)}/subjects/other/versions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        schema_id = json.loads(answer.read())["id"]
    assert HttpRegistry(url_of(server)).schema(schema_id) is None


def test_an_address_without_a_registry_is_no_unknown_id(server: RegistryServer) -> None:
    """A wrong path answers 404 to everything; taken for "no such id" it would make every record a dead letter."""
    with pytest.raises(RegistryUnavailable):
        HttpRegistry(f"{url_of(server)}/elsewhere").schema(1)


def test_what_was_asked_once_needs_no_registry(server: RegistryServer) -> None:
    """Ids are kept both ways: with the server gone a known schema has its id and a known id its schema; an unknown one waits."""
    registry, reader = HttpRegistry(url_of(server)), HttpRegistry(url_of(server))
    schema_id = registry.register(SUBJECT, avro_schema("trade_v2"))
    assert reader.schema(schema_id) == avro_schema("trade_v2")
    server.stop()
    assert registry.register(SUBJECT, avro_schema("trade_v2")) == schema_id
    assert reader.schema(schema_id) == avro_schema("trade_v2")
    with pytest.raises(RegistryUnavailable):
        reader.schema(schema_id + 1)


# --- who is let in -----------------------------------------------------------------------------------------

BASIC = "Basic " + b64encode(f"k2:{SECRET}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Door:
    """A way in: what the server asks for, and the settings that bring it."""

    authorization: str
    settings: dict[str, str]


DOORS = {
    "user and password": Door(BASIC, {"registry_user": "k2", "registry_password": SECRET}),
    "in the URL": Door(BASIC, {}),
    "token": Door(f"Bearer {SECRET}", {"registry_token": SECRET}),
}


@pytest.mark.parametrize("name", DOORS)
def test_credentials_open_a_registry_and_are_never_shown(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each way works; another password is refused with a sentence, and no secret is in it, in a log or in the settings as text."""
    caplog.set_level("DEBUG")
    door = DOORS[name]
    with RegistryServer(tmp_path / "registry", Settings(), authorization=door.authorization) as server:
        url = url_of(server).replace("//", f"//k2:{SECRET}@") if name == "in the URL" else url_of(server)
        registry = open_registry(Settings(registry_url=url, **door.settings))
        schema_id = registry.register(SUBJECT, avro_schema("trade_v2"))
        assert registry.schema(schema_id) == avro_schema("trade_v2")

        wrong = {field: "wrong" if value == SECRET else value for field, value in door.settings.items()}
        other = open_registry(Settings(registry_url=url.replace(SECRET, "wrong"), **wrong))
        for refused in (other, open_registry(Settings(registry_url=url_of(server)))):
            with pytest.raises(RegistryUnavailable, match=r"wants other credentials \(40[13]\)") as caught:
                refused.schema(schema_id)
            assert "wrong" not in str(caught.value)
        server.stop()
        with pytest.raises(RegistryUnavailable, match="did not answer") as caught:
            registry.schema(99)
    shown = f"{caught.value} {caught.value.__cause__!r} {caplog.text} {Settings(**door.settings)!r}"
    assert SECRET not in shown
    assert BASIC.split()[1] not in shown


def test_tls_is_checked_against_the_authority_that_is_named(certificate: Certificate, tmp_path: Path) -> None:
    """With its authority the registry is trusted, without it not, and a file that holds none is a wrong setting."""
    with RegistryServer(tmp_path / "registry", Settings(), tls=certificate) as server:
        url = url_of(server)
        trusting = open_registry(Settings(registry_url=url, registry_ca_file=str(certificate.authority)))
        assert trusting.register(SUBJECT, avro_schema("trade_v2")) == 1
        with pytest.raises(RegistryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            open_registry(Settings(registry_url=url)).schema(1)
        for wrong in (tmp_path / "missing.pem", certificate.key):
            with pytest.raises(SettingsError, match="K2_REGISTRY_CA_FILE"):
                open_registry(Settings(registry_url=url, registry_ca_file=str(wrong)))


# --- an outage ---------------------------------------------------------------------------------------------


def stop(server: RegistryServer) -> Callable[[], None]:
    """Killed, and started again where it was."""
    port = server.port
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    return lambda: server.start(port=port)


def freeze(server: RegistryServer) -> Callable[[], None]:
    """Takes connections and never answers, until it goes on."""
    os.kill(server.pid, signal.SIGSTOP)
    return lambda: os.kill(server.pid, signal.SIGCONT)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", [stop, freeze])
def test_an_outage_in_the_middle_of_a_run_makes_workers_wait(
    fault: Callable[[RegistryServer], Callable[[], None]], server: RegistryServer, tmp_path: Path
) -> None:
    """Rows whose schema id is met for the first time while the registry is away: red, no row, no letter; then every row, once."""
    environment = SMALL_WINDOWS | {"K2_REGISTRY_URL": url_of(server), "K2_GAP_SMALL_ROWS": "10"}
    site = Site(tmp_path / "k2", environment)
    settings = Settings(home=site.home, registry_url=url_of(server), partitions=2)
    first, second = recorded_trades(settings, rows=3_000)
    ids = prepare_topics(settings, [first.topic, second.topic])
    newer = open_registry(settings).register("newer-value", avro_schema("trade_v2") | {"doc": "The same fields, another id."})
    assert newer not in ids.values()
    publish(settings, [recorded.script(first)], ids)
    with site.worker() as worker:
        until(lambda: rows_of(worker) == len(first.rows), START_SECONDS)
        mend = fault(server)
        publish(settings, [recorded.script(second)], {second.topic: newer})
        until(lambda: "registry" in causes_of(worker))
        time.sleep(2)
        assert rows_of(worker) == len(first.rows)
        assert worker.exit_code() is None
        mend()
        until(lambda: rows_of(worker) == len(first.rows) + len(second.rows))
        until(lambda: is_well(worker))
        assert worker.stop() == 0, worker.last_lines(20)
    assert site.problems() == ()
    assert sum(counts[4] for counts in site.outcome().ledger.values()) == 0, "dead letters"


# --- between us and the registry ---------------------------------------------------------------------------


FAULTS = [Fault(Effect.RESET), Fault(Effect.LOST_REPLY), *(Fault(Effect.ERROR_INSTEAD, status=status) for status in (404, 429, 500, 502, 503, 504))]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.effect}-{fault.status}")
def test_whatever_stands_between_is_no_unknown_id(fault: Fault, server: RegistryServer) -> None:
    """A reset, a lost reply, the errors of a proxy: asked again, and answered; registering again after a lost reply gives the same id."""
    with HttpProxy(url_of(server)) as proxy:
        for path in ("/config", "/versions"):
            proxy.inject(replace(fault, path=path))
            with pytest.raises(RegistryUnavailable):
                HttpRegistry(proxy.url).register(SUBJECT, avro_schema("trade_v2"))
            proxy.clear()
        schema_id = HttpRegistry(proxy.url).register(SUBJECT, avro_schema("trade_v2"))
        assert asked(server, f"/subjects/{SUBJECT}/versions") == [1]
        registry = HttpRegistry(proxy.url)
        proxy.inject(replace(fault, path="/schemas/ids"))
        with pytest.raises(RegistryUnavailable):
            registry.schema(schema_id)
        assert registry.schema(schema_id) == avro_schema("trade_v2")
