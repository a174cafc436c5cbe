"""Reference data in a group on a real broker: every worker looks all instruments up, whoever reads their topic, and trades go on beside it."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import UUID

import pytest

from k2stream.checkout import find_root
from k2stream.feed import asx
from k2stream.feed.avro import encode_one
from k2stream.feed.recording import MessageIds
from k2stream.playback import prepare_topics, publish_recorded
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.worker_group import WorkerGroup, partitions_of
from tests.services import watching

TOPIC = "market.equities.reference_data.asx"
ROWS = 400

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def group(fresh_kafka: str, tmp_path: Path) -> Iterator[WorkerGroup]:
    """Workers to be started on recorded trades, quotes and instruments."""
    environment = {
        "K2_BROKER": f"k2kafka://{fresh_kafka}",
        "K2_APP_ID": tmp_path.name,
        "K2_PARTITIONS": "4",
        "K2_STATE": "memory",
        "K2_SESSION_TIMEOUT_MS": "6000",
        "K2_WINDOW_MS": "500",
        "K2_FSYNC": "false",
    }
    with WorkerGroup(tmp_path, environment, root=find_root()) as made:
        for what in ("trades", "quotes", "instruments"):
            publish_recorded(made.settings(), what, rows=None if what == "instruments" else ROWS)
        yield made


def until(group: WorkerGroup, holds: Callable[[], bool]) -> None:
    try:
        watching.until(holds, 180)
    except AssertionError:
        pytest.fail(group.last_lines(20))


def looked_up(group: WorkerGroup, number: int, symbol: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{group.worker(number).port}/instruments?exchange=ASX&symbol={symbol}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except (URLError, OSError):
        return {}
    return found


def rows(group: WorkerGroup, data_type: str) -> int:
    return sum(p["rows"] for number in group.running() for p in partitions_of(group.state(number), data_type))


def say(group: WorkerGroup, company: str, **changed: Any) -> None:
    """A newer record of a shipped company; none at all without `changed`: the end."""
    settings = group.settings()
    schema_id = prepare_topics(settings, [TOPIC])[TOPIC]
    known = {r["company_id"]: r for r in asx.instruments(ids=MessageIds(UUID(int=5)), now_us=1).rows.to_pylist()}
    value = encode_one({**known[company], **changed}, schema="reference_data_v2", schema_id=schema_id) if changed else None

    async def send() -> None:
        sink = open_sink(settings)
        await sink.send(TOPIC, 0, [Outgoing(company.encode(), value, 1_700_000_000_000)])
        await sink.close()

    asyncio.run(send())


@pytest.mark.kafka
def test_every_worker_looks_instruments_up_and_survives_their_reader(group: WorkerGroup) -> None:
    """One reads the topic, both know all; the reader is killed and the other goes on, with an update and an end that came meanwhile."""
    for _ in range(2):
        group.start()
    until(group, lambda: all(looked_up(group, n, "RIO").get("company_name") == "RIO TINTO LTD" for n in (0, 1)))
    until(group, lambda: rows(group, "trades") == rows(group, "quotes") == ROWS)
    reader = next(n for n in (0, 1) if partitions_of(group.state(n), "reference_data"))
    group.kill(reader)
    say(group, "7078", company_name="BHP GROUP")
    say(group, "7458")
    until(group, lambda: looked_up(group, 1 - reader, "BHP").get("company_name") == "BHP GROUP")
    until(group, lambda: bool(looked_up(group, 1 - reader, "RIO").get("delisted_at")))
    until(group, lambda: rows(group, "trades") == rows(group, "quotes") == ROWS)
    heir = group.start()
    until(group, lambda: bool(looked_up(group, heir, "RIO").get("delisted_at")))
