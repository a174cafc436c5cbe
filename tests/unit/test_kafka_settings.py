"""What our Kafka consumer is told, and how brokers are named: no broker needed."""

from itertools import islice
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport import by_url
from yarl import URL

from k2stream.settings import Settings
from k2stream.transport.kafka import Consumer, Producer, Transport
from k2stream.transport.kafka_options import bootstrap_of, consumer_options
from k2stream.transport.kafka_retry import MAX_PAUSE_SECONDS, backoff


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
    assert bootstrap_of([URL(url)]) == [expected]


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
