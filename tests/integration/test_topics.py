"""`k2 topics` on a log of either kind: what drifted is shown and mended, and a second run finds nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from k2stream.cli import app
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.topics.admin import observe
from k2stream.topics.plan import Found
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink, Outgoing

T = TypeVar("T")
NOW_MS = time.time_ns() // 1_000_000
"""Retention deletes what is older than it says."""
DECLARED = """\
data_types:
  trades:
    key: symbol
    config:
      cleanup.policy: delete
      retention.ms: 604800000
topics:
  market.crypto.trades.{name}a:
    partitions: 4
  market.crypto.trades.{name}b:
    partitions: 2
    config:
      retention.ms: 86400000
  market.crypto.trades.{name}c:
    partitions: 2
"""


class Log:
    """One log, the file that declares its topics, and `k2` on it. Names are its own: the broker is shared."""

    def __init__(self, folder: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = f"x{uuid4().hex[:6]}"
        self.file = folder / "topics.yaml"
        self.file.write_text(DECLARED.format(name=self.name))
        self.settings = Settings(home=folder / "k2", broker=broker)
        monkeypatch.setenv("K2_HOME", str(self.settings.home))
        monkeypatch.setenv("K2_BROKER", broker)

    def topic(self, letter: str) -> str:
        return f"market.crypto.trades.{self.name}{letter}"

    def ask(self, question: Callable[[LogSink], Awaitable[T]]) -> T:
        async def asked() -> T:
            sink = open_sink(self.settings)
            try:
                return await question(sink)
            finally:
                await sink.close()

        return asyncio.run(asked())

    def k2(self, *arguments: str, code: int = 0, answer: str = "") -> str:
        """What a command says of this log's topics."""
        done = CliRunner().invoke(app, ["topics", *arguments, "--file", str(self.file)], input=answer)
        assert done.exit_code == code, (done.output, done.exception)
        return "\n".join(line for line in done.output.splitlines() if self.name in line or ":" not in line or "mind" in line)

    def found(self) -> dict[str, Found]:
        return {name: found for name, found in self.ask(observe).items() if self.name in name}


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    broker = f"k2kafka://{request.getfixturevalue('kafka')}" if request.param == "kafka" else ""
    return Log(tmp_path, broker, monkeypatch)


def test_what_drifted_is_shown_and_mended_once(log: Log) -> None:
    """Too few partitions, another retention, a missing topic: `diff` names each and fails; `apply` mends them; then there is nothing to do."""
    log.ask(lambda sink: sink.create_topic(log.topic("a"), 2, {"retention.ms": "3600000", "segment.bytes": "1048576"}))
    log.ask(lambda sink: sink.create_topic(log.topic("b"), 3, {"cleanup.policy": "delete", "retention.ms": "86400000"}))
    log.ask(lambda sink: sink.send(log.topic("a"), 1, [Outgoing(b"BHP", b"value", NOW_MS)]))

    shown = log.k2("diff", code=1)
    a, b, c = (log.topic(letter) for letter in "abc")
    assert f"{a}: partitions: declared 4, found 2" in shown
    assert f"{a}: retention.ms: declared 604800000, found 3600000" in shown
    assert f"{b}: partitions: declared 2, found 3" in shown
    assert f"{c}: topic: declared 2 partitions, found nothing" in shown
    planned = log.k2("plan")
    assert planned == log.k2("apply", "--dry-run")
    for said in (f"grow      {a}  2 -> 4 partitions", "mind: keys move", f"left      {b}: 2 partitions declared, 3 found"):
        assert said in planned
    assert set(log.found()) == {a, b}

    assert f"done: grow {a}" in log.k2("apply")
    found = log.found()
    assert {name: topic.partitions for name, topic in found.items()} == {a: 4, b: 3, c: 2}
    assert (found[a].config["retention.ms"], found[a].config["segment.bytes"]) == ("604800000", "1048576"), "what nobody declares stays"
    assert log.ask(lambda sink: sink.bounds(TopicPartition(a, 1))) == (0, 1)
    assert log.ask(lambda sink: sink.send(a, 3, [Outgoing(b"RIO", b"value", NOW_MS)])) == 0
    again = log.k2("apply")
    assert "done" not in again
    assert a not in again


def test_asking_makes_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plan`, `diff` and a dry run on a home that is not there leave it so."""
    log = Log(tmp_path, "", monkeypatch)
    assert f"create    {log.topic('a')}  with 4 partitions" in log.k2("plan")
    assert f"{log.topic('a')}: topic: declared 4 partitions, found nothing" in log.k2("diff", code=1)
    log.k2("apply", "--dry-run")
    assert not log.settings.home.exists()


def test_a_topic_that_nobody_declares_is_deleted_only_on_two_words(log: Log) -> None:
    """Neither `apply`, nor `--delete` without a yes; another topic of the log is never in question."""
    log.k2("apply")
    log.file.write_text(log.file.read_text().replace(f"  {log.topic('c')}:\n    partitions: 2\n", ""))
    other = f"somebody.elses.{log.name}"
    log.ask(lambda sink: sink.create_topic(other, 1, {}))
    only = [topic for topic in log.ask(observe) if topic.startswith(("market.", "dlq."))] == [log.topic(letter) for letter in "abc"]

    assert f"left      {log.topic('c')}: nobody declares it" in log.k2("apply")
    log.k2("apply", "--delete", code=1, answer="n\n")
    assert log.topic("c") in log.found()
    if only:  # a broker that other tests share holds topics that are theirs
        assert f"done: delete {log.topic('c')}" in log.k2("apply", "--delete", "--yes")
        assert set(log.found()) == {log.topic("a"), log.topic("b"), other}


def test_a_deleted_topic_is_gone_with_its_records(log: Log) -> None:
    """Made again it is empty; a second deletion is no error."""
    topic = log.topic("a")
    log.ask(lambda sink: sink.create_topic(topic, 1, {}))
    log.ask(lambda sink: sink.send(topic, 0, [Outgoing(b"BHP", b"value", NOW_MS)]))
    for _ in range(2):
        log.ask(lambda sink: sink.delete_topic(topic))
    assert topic not in log.found()
    log.ask(lambda sink: sink.create_topic(topic, 1, {}))
    assert log.ask(lambda sink: sink.bounds(TopicPartition(topic, 0))) == (0, 0)
