"""The replay agent: an application of its own, which sends letters back once they would pass, and never before."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path

import pytest

from k2stream.deadletter.standing import DeadLetters
from k2stream.decode.registry import open_registry
from k2stream.feed.avro import encode_one
from k2stream.home import Home
from k2stream.playback import prepare_topics
from k2stream.query.letters import Selection
from k2stream.rows import avro_schema, body_schema
from k2stream.settings import Settings
from k2stream.testing import trade_rows
from k2stream.topics import TopicName
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Reason
from k2stream.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
TOPIC = "market.equities.trades.asx"

pytestmark = pytest.mark.timeout(300)


async def publish(settings: Settings, values: list[bytes]) -> None:
    sink = open_sink(settings)
    await sink.send(TOPIC, 0, [Outgoing(b"BHP", value, 1_394_400_000_000) for value in values])
    await sink.close()


def states(settings: Settings) -> list[tuple[str, str, int]]:
    """Reason, state and attempt of each letter."""
    with DeadLetters(settings) as letters:
        found = letters.chosen(Selection())
    return [] if found is None else sorted(zip(*(found[name].to_pylist() for name in ("reason", "state", "attempt")), strict=True))


def until(settings: Settings, wanted: list[tuple[str, str, int]], *workers: WorkerProcess, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while (found := states(settings)) != wanted:
        assert all(worker.exit_code() is None for worker in workers), "\n".join(worker.last_lines(20) for worker in workers)
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def test_a_letter_goes_back_when_its_schema_is_there(tmp_path: Path) -> None:
    """One waits for a schema, one can never pass: the first becomes a row by itself, the second is left alone."""
    settings = Settings(home=tmp_path / "k2", fsync=False)
    Home.open(settings.home)
    prepare_topics(settings, [TOPIC])
    row = trade_rows([{}]).select(body_schema("trade_v2").names).to_pylist()[0]
    good = encode_one(row, schema="trade_v2", schema_id=2)
    asyncio.run(publish(settings, [good, b"\x09nonsense"]))
    environment = {"K2_WINDOW_MS": "300", "K2_REPLAY_EVERY_MS": "500"}
    logs = [tmp_path / "worker.log", tmp_path / "replay.log"]
    with (
        WorkerProcess(home=settings.home, root=ROOT, log_path=logs[0], environment=environment) as worker,
        WorkerProcess(home=settings.home, root=ROOT, log_path=logs[1], environment=environment, application="agents.replay") as agent,
    ):
        until(settings, [("bad_magic", "open", 1), ("unknown_schema", "open", 1)], worker, agent)
        agent.wait_until_up()
        later = {**avro_schema("trade_v2"), "doc": "The same, registered later."}
        assert open_registry(settings).register(f"{TopicName.parse(TOPIC).subject}-later", later) == 2
        until(settings, [("bad_magic", "open", 1), ("unknown_schema", "superseded", 1)], worker, agent)
        state = agent.state()
        assert state is not None
        assert state["healthy"], state["causes"]
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/reasons", timeout=30) as answer:
            assert set(json.loads(answer.read())) == {reason.value for reason in Reason}
        assert agent.stop() == 0, agent.last_lines(20)
