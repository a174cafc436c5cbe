"""Who writes makes a missing topic as it is declared; one that is there otherwise is used as it is, and told of once."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog

from k2stream.decode.file_registry import FileRegistry
from k2stream.decode.registry import Registry
from k2stream.errors import RegistryUnavailable, SettingsError
from k2stream.playback import prepare_topic
from k2stream.settings import Settings
from k2stream.topics import KINDS, require_co_partitioned
from k2stream.topics.admin import observe, plan_for
from k2stream.topics.files import declared_topics
from k2stream.topics.plan import Action, Found
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
BINANCE, ASX = "market.crypto.trades.binance", "market.equities.trades.asx"
COMPANIES = "market.equities.reference_data.asx"
DECLARED = f"""\
data_types:
  trades:
    key: symbol
    config:
      cleanup.policy: delete
      retention.ms: 3600000
  reference_data:
    key: company_id
    config:
      cleanup.policy: compact
topics:
  {BINANCE}:
    partitions: 5
  {ASX}:
    config:
      retention.ms: 7200000
  {COMPANIES}:
    partitions: 1
"""
HOUR = {"cleanup.policy": "delete", "retention.ms": "3600000"}
CSV = "symbol,time,price,quantity\nBHP,1700000000000,45.1,100\n"
MAPPING = "fields:\n  symbol: symbol\n  timestamp: {column: time, unit: ms}\n  price: price\n  quantity: quantity\n  currency: {constant: AUD}\n"


class Log:
    """An embedded log, and a file that declares three topics of it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.home = folder / "topics.yaml", folder / "k2"
        self.file.write_text(DECLARED)
        self.registry: Registry = FileRegistry(self.home / "schemas")

    def settings(self, **own: Any) -> Settings:  # any setting
        return Settings(home=self.home, topics_file=str(self.file), **own)

    def ask(self, question: Callable[[LogSink], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with opened(self.settings()) as sink:
                return await question(sink)

        return asyncio.run(asked())

    def prepare(self, *topics: str, **own: Any) -> list[MutableMapping[str, Any]]:
        """What is logged while topics are prepared for a writer with these settings."""
        settings = self.settings(**own)

        async def prepared(sink: LogSink) -> None:
            for topic in topics:
                await prepare_topic(settings, sink, self.registry, topic)

        with structlog.testing.capture_logs() as logged:
            self.ask(prepared)
        return logged

    def found(self, topic: str) -> Found:
        return self.ask(observe)[topic]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LogSink]:
    sink = open_sink(settings)
    try:
        yield sink
    finally:
        await sink.close()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_missing_topic_is_made_as_its_file_declares_it(log: Log) -> None:
    """Number, retention and cleanup; K2_PARTITIONS where the file gives no number, the data type's settings where it has no topic."""
    assert log.prepare(BINANCE, ASX, COMPANIES, "market.crypto.trades.bybit", "market.crypto.quotes.bybit") == []
    assert log.found(BINANCE) == Found(5, HOUR)
    assert log.found(ASX) == Found(8, {**HOUR, "retention.ms": "7200000"})
    assert log.found(COMPANIES) == Found(1, {"cleanup.policy": "compact"})
    assert log.found("market.crypto.trades.bybit") == Found(8, HOUR)
    assert log.found("market.crypto.quotes.bybit") == Found(8, KINDS["quotes"].config)
    assert {d.topic for d in plan_for(log.settings(), declared_topics(log.settings())).differences} == {
        "market.crypto.trades.bybit",
        "market.crypto.quotes.bybit",
    }


def test_a_number_that_is_set_by_hand_goes_before_a_declared_one(log: Log) -> None:
    """A laptop's few partitions are nobody's mistake, so they are not warned of; a table of instruments stays in one."""
    assert log.prepare(BINANCE, COMPANIES, BINANCE, partitions=2) == []
    assert (log.found(BINANCE), log.found(COMPANIES).partitions) == (Found(2, HOUR), 1)


def test_what_differs_is_warned_of_once_by_name(log: Log) -> None:
    """Expected, found and `k2 topics diff`; nothing is changed."""
    there = Found(3, {"cleanup.policy": "delete", "retention.ms": "1"})
    log.ask(lambda sink: sink.create_topic(BINANCE, there.partitions, there.config))
    (warning,) = log.prepare(BINANCE)
    assert (warning["event"], warning["log_level"], warning["topic"]) == ("topic.differs", "warning", BINANCE)
    assert warning["expected"] == {"partitions": "5", "retention.ms": "3600000"}
    assert warning["found"] == {"partitions": "3", "retention.ms": "1"}
    assert "`k2 topics diff`" in warning["then"]
    assert log.found(BINANCE) == there


def test_a_feed_that_waits_for_its_registry_does_not_repeat_itself(log: Log) -> None:
    """It prepares its topic every few seconds until both are there."""
    log.ask(lambda sink: sink.create_topic(BINANCE, 3, HOUR))
    log.registry = FileRegistry(log.file / "schemas")  # a file in the way
    for _ in range(3):
        with structlog.testing.capture_logs() as logged, pytest.raises(RegistryUnavailable):
            log.ask(lambda sink: prepare_topic(log.settings(), sink, log.registry, BINANCE))
        assert logged == []


@pytest.mark.parametrize("first", [BINANCE, f"{BINANCE}-b"])
@pytest.mark.parametrize("number", [3, 5])
def test_redundant_topics_fit_whoever_is_first_and_whatever_is_declared(log: Log, first: str, number: int) -> None:
    """The second gets the number of the first, or workers would refuse both; where that is not the declared one it is said of either."""
    log.ask(lambda sink: sink.create_topic(first, number, HOUR))
    second = ({BINANCE, f"{BINANCE}-b"} - {first}).pop()
    logged = log.prepare(first, second, partitions=7) + log.prepare(first, second)
    existing = log.ask(observe)
    require_co_partitioned({name: found.partitions for name, found in existing.items()})
    assert existing[second] == Found(number, HOUR)
    assert {entry["topic"] for entry in logged} == (set() if number == 5 else {first, second})


def test_a_redundant_topic_without_its_venues_is_made_as_that_is_declared(log: Log) -> None:
    """Whichever of them starts first on an empty log."""
    log.prepare(f"{BINANCE}-b", BINANCE)
    assert log.found(f"{BINANCE}-b") == log.found(BINANCE) == Found(5, HOUR)


def test_a_redundant_topic_grows_with_its_venues_and_is_nobodys_surplus(log: Log) -> None:
    """`k2 topics apply` keeps both at one number, and `--delete` leaves the one that no line of the file names."""
    log.prepare(BINANCE, f"{BINANCE}-b", partitions=2)
    made = plan_for(log.settings(), declared_topics(log.settings()), delete=True)
    grown = {step.topic: step.partitions for step in made.steps if step.action is Action.GROW}
    assert grown == {BINANCE: 5, f"{BINANCE}-b": 5}
    assert not [step for step in made.steps if step.action is Action.DELETE]


def test_a_file_that_declares_redundant_topics_of_unequal_numbers_is_refused(log: Log) -> None:
    """By its key: workers would refuse the topics."""
    log.file.write_text(f"{DECLARED}  {BINANCE}-b:\n    partitions: 4\n")
    with pytest.raises(SettingsError, match=rf"topics.{BINANCE}-b.partitions: expected 5 .*found 4"):
        declared_topics(log.settings())


def test_a_load_makes_its_topic_as_declared(log: Log, tmp_path: Path) -> None:
    """By the command itself; outside a checkout, where no file is named, with K2_PARTITIONS."""
    (tmp_path / "trades.csv").write_text(CSV)
    (tmp_path / "map.yaml").write_text(MAPPING)
    command = [sys.executable, "-m", "k2stream.cli", "load", "trades", "trades.csv", "--mapping", "map.yaml", "--exchange", "asx", "--asset-class", "equities"]
    environment = {**os.environ, "K2_HOME": str(log.home), "K2_TOPICS_FILE": str(log.file), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert log.found(ASX) == Found(8, {**HOUR, "retention.ms": "7200000"})


def test_outside_a_checkout_nothing_is_declared(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel brings no config folder: K2_PARTITIONS and what the data type has."""
    monkeypatch.setattr("k2stream.topics.files.find_root", lambda: tmp_path)
    settings = Settings(home=log.home)
    log.ask(lambda sink: prepare_topic(settings, sink, log.registry, BINANCE))
    assert log.found(BINANCE) == Found(8, KINDS["trades"].config)
