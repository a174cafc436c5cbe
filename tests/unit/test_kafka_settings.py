"""What our Kafka consumer is told, and how brokers are named: no broker needed."""

import re
import ssl
from itertools import islice
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport import by_url
from yarl import URL

from k2stream.errors import SettingsError
from k2stream.settings import Settings, load_settings
from k2stream.transport.kafka import Consumer, Producer, Transport
from k2stream.transport.kafka_access import servers_of, urls_of
from k2stream.transport.kafka_options import consumer_options
from k2stream.transport.kafka_retry import MAX_PAUSE_SECONDS, backoff
from k2stream.transport.open import open_sink


def options(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    """Options of a worker with these settings."""
    app = faust.App("options", broker="k2kafka://127.0.0.1:9092", autodiscover=False, datadir=str(tmp_path))
    return consumer_options(app.conf, Settings(home=tmp_path, **settings), [URL("k2kafka://127.0.0.1:9092")], app.assignor)


def test_scheme_finds_our_transport() -> None:
    """Another driver behind this URL would deliver records one by one."""
    transport = by_url(URL("k2kafka://127.0.0.1:9092"))

    assert transport is Transport
    assert (transport.Consumer, transport.Producer) == (Consumer, Producer)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("k2kafka://broker:19092", "broker:19092"),
        ("k2kafka://broker", "broker:9092"),
        ("k2kafka://[::1]:9093", "[::1]:9093"),
    ],
)
def test_broker_is_named_as_the_url_says(url: str, expected: str) -> None:
    """A port left out is Kafka's, an IPv6 address keeps its brackets."""
    assert servers_of([URL(url)]) == [expected]


@pytest.mark.parametrize(
    ("broker", "expected"),
    [("k2kafka://a:1;b", ["a:1", "b:9092"]), ("k2kafka://a:1,b:2;k2kafka://[::1]:3", ["a:1", "b:2", "[::1]:3"])],
)
def test_several_brokers_are_all_asked(broker: str, expected: list[str]) -> None:
    """Feeds, audits and workers read one setting, and read it alike."""
    assert servers_of(urls_of(broker)) == expected


SASL = {"broker": "k2kafka://a:1", "broker_security_protocol": "SASL_SSL", "broker_username": "me", "broker_password": "never to be seen"}
TLS = {"broker": "k2kafka://a:1", "broker_security_protocol": "SSL"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (SASL | {"broker_username": ""}, "K2_BROKER_SECURITY_PROTOCOL=SASL_SSL: expected K2_BROKER_USERNAME and K2_BROKER_PASSWORD"),
        (SASL | {"broker_password": ""}, "K2_BROKER_SECURITY_PROTOCOL=SASL_SSL: expected K2_BROKER_USERNAME and K2_BROKER_PASSWORD"),
        (SASL | {"broker_security_protocol": "PLAINTEXT"}, "tells nobody K2_BROKER_USERNAME"),
        (SASL | {"broker_security_protocol": "SSL"}, "tells nobody K2_BROKER_USERNAME"),
        (SASL | {"broker_security_protocol": "SASL_PLAINTEXT", "broker_ca_file": "ca.pem"}, "has no use for K2_BROKER_CA_FILE"),
        (SASL | {"broker": ""}, "K2_BROKER is none of Kafka"),
        (TLS | {"broker_cert_file": "own.pem"}, "expected both or neither"),
        (TLS | {"broker_key_file": "own.key"}, "expected both or neither"),
        ({"broker": "k2kafka://me:never to be seen@a:1"}, "found a user in it"),
        ({"broker_ca_file": "ca.pem"}, "has no use for K2_BROKER_CA_FILE"),
        (SASL | {"broker_sasl_mechanism": "GSSAPI"}, "K2_BROKER_SASL_MECHANISM='GSSAPI'"),
    ],
)
def test_credentials_that_nobody_would_use_are_refused(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str) -> None:
    """A password that is not sent, or a certificate that is not shown, looks like a broker that is wrong: one sentence says it before."""
    for name, value in settings.items():
        monkeypatch.setenv(f"K2_{name.upper()}", value)
    with pytest.raises(SettingsError, match=re.escape(says)) as refused:
        load_settings()

    assert "never to be seen" not in str(refused.value)


@pytest.mark.parametrize("named", [{"broker_ca_file": "missing.pem"}, {"broker_cert_file": "missing.pem", "broker_key_file": "own.key"}])
def test_file_that_is_not_there_is_named(tmp_path: Path, named: dict[str, str]) -> None:
    """Before anything is connected, and with its setting."""
    with pytest.raises(SettingsError, match=f"{'K2_' + next(iter(named)).upper()}=missing.pem"):
        open_sink(Settings(home=tmp_path, **TLS, **named))


def test_consumer_is_told_the_credentials_and_nobody_else_is(tmp_path: Path) -> None:
    """They reach aiokafka; a log line with the settings in it would not show them."""
    told = options(tmp_path, **SASL)

    assert (told["security_protocol"], told["sasl_plain_username"], told["sasl_plain_password"]) == ("SASL_SSL", "me", "never to be seen")
    assert told["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert told["ssl_context"].check_hostname
    assert "never to be seen" not in repr(Settings(home=tmp_path, **SASL))


def test_reader_is_never_moved_on_and_nothing_is_committed_behind_our_back(tmp_path: Path) -> None:
    """Positions are the table's: no reset, no automatic commit, no aborted rows, no unchecked bytes."""
    told = options(tmp_path)

    assert told["auto_offset_reset"] == "none"
    assert told["enable_auto_commit"] is False
    assert told["isolation_level"] == "read_committed"
    assert told["check_crcs"] is True


def test_settings_decide_how_soon_a_silent_worker_is_replaced(tmp_path: Path) -> None:
    """Session and heartbeat are ours, and a rebalance leaves time to close windows."""
    told = options(tmp_path, session_timeout_ms=6_000, heartbeat_interval_ms=300, revoke_timeout_ms=9_000)

    assert (told["session_timeout_ms"], told["heartbeat_interval_ms"]) == (6_000, 300)
    assert told["rebalance_timeout_ms"] > 9_000
    assert told["request_timeout_ms"] > told["rebalance_timeout_ms"]


def test_machine_that_vanished_is_missed_within_seconds(tmp_path: Path) -> None:
    """No connection is closed by whoever lost its power: a fetch that is not answered must end, and Faust's 90 s are long."""
    assert options(tmp_path)["request_timeout_ms"] <= 20_000


def test_one_fetch_is_small_beside_the_budget(tmp_path: Path) -> None:
    """A partition's fetch passes the budget by little, and never sinks to nothing."""
    assert options(tmp_path, fetch_buffer_bytes=4 << 20)["max_partition_fetch_bytes"] == 512 << 10
    assert options(tmp_path, fetch_buffer_bytes=1)["max_partition_fetch_bytes"] == 64 << 10


async def test_aiokafka_takes_every_option(tmp_path: Path) -> None:
    """An option that aiokafka renamed would end the worker at its start."""
    consumer = AIOKafkaConsumer(**options(tmp_path))
    await consumer.stop()


def test_pauses_grow_and_stay_bounded() -> None:
    """A broker that is back is met within seconds, however long it was away."""
    pauses = list(islice(backoff(), 50))

    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS
