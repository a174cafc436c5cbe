"""One data type is in trouble and all others go on: positions, topics that are taken up, and the start of a worker."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from k2stream.app import K2App, create_app
from k2stream.capture.capture import Capture
from k2stream.errors import K2Error, LakeError, SettingsError, TransportError
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.transport.embedded_sink import EmbeddedSink

TRADES, QUOTES = (TopicPartition(f"market.equities.{data_type}.asx", 0) for data_type in ("trades", "quotes"))


class CaptureThatKnows:
    """Every partition continues at 7."""

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(tps, 7)


class CaptureThatIsLost:
    """Retention was faster than the table."""

    async def positions(self, tps: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        raise TransportError("offsets were deleted before they were read")


@pytest.fixture
async def app(tmp_path: Path) -> K2App:
    """An app that follows trades and quotes, with a log that has a topic of each, and nothing started."""
    app = create_app(Settings(home=tmp_path))
    for data_type in ("quotes", "trades"):
        app.batch_topic(data_type, f"market.*.{data_type}.*")
    app.sink = EmbeddedSink(tmp_path / "log")
    for tp in (QUOTES, TRADES):
        await app.sink.create_topic(tp.topic, 1, {})
    return app


def opens(capture: Any, data_type: str) -> Callable[[K2App], None]:
    def opener(app: K2App) -> None:
        app.captures[data_type] = cast(Capture, capture)

    return opener


def refuses(exc: K2Error) -> Callable[[K2App], None]:
    def opener(_: K2App) -> None:
        raise exc

    return opener


def names(app: K2App) -> dict[str, list[str]]:
    return {data_type: list(topic.names) for data_type, (_, topic) in app.patterns.items()}


async def test_positions_of_one_data_type_are_known_while_anothers_are_not(app: K2App) -> None:
    """Who knows nothing is left out, and asked again; only if nobody knows anything the trouble is raised."""
    await app._take_up(await app._new_topics())
    app.captures = {"quotes": cast(Capture, CaptureThatIsLost()), "trades": cast(Capture, CaptureThatKnows())}
    assert await app.positions({QUOTES, TRADES}) == {TRADES: 7}
    with pytest.raises(TransportError):
        await app.positions({QUOTES})


async def test_a_table_that_does_not_open_keeps_no_other_topic_from_being_taken_up(app: K2App) -> None:
    """Its own topics wait and are found again; the trouble is told once all others have their names."""
    app.openers = {"quotes": refuses(LakeError("the catalog does not answer")), "trades": opens(CaptureThatKnows(), "trades")}
    with pytest.raises(LakeError):
        await app._take_up(await app._new_topics())
    assert names(app) == {"quotes": [], "trades": [TRADES.topic]}
    app.openers["quotes"] = opens(CaptureThatKnows(), "quotes")
    await app._take_up(await app._new_topics())
    assert names(app) == {"quotes": [QUOTES.topic], "trades": [TRADES.topic]}


async def test_topics_found_beside_trouble_are_subscribed(app: K2App, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have their names already, so no later look would find them new."""
    app.openers = {"quotes": refuses(LakeError("the catalog does not answer"))}
    subscribed = list[dict[str, list[str]]]()

    class Conductor:
        def ensure_subscribed(self) -> None:
            subscribed.append(names(app))
            app._stopped.set()
            app._shutdown.set()

    monkeypatch.setattr(type(app), "topics", Conductor())

    looks = iter(range(3))

    async def at_once(_: float) -> None:
        assert next(looks, None) is not None, "three looks, and nothing was subscribed"

    monkeypatch.setattr(app, "sleep", at_once)
    await app.watch_topics()
    assert subscribed == [{"quotes": [], "trades": [TRADES.topic]}]
    assert "the catalog does not answer" in str(app.health.causes())


async def test_a_worker_starts_though_a_table_does_not_open(app: K2App) -> None:
    """It is asked for again beside the reading, and shown; only what a person has to mend ends the start."""
    app.openers = {"quotes": refuses(LakeError("the catalog does not answer"))}
    await app._open_log()
    assert names(app)["trades"] == [TRADES.topic]
    assert "the catalog does not answer" in str(app.health.causes())
    app.openers = {"quotes": refuses(SettingsError("the file is not a database"))}
    with pytest.raises(SettingsError):
        await app._open_log()
