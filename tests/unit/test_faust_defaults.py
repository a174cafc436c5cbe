"""Every default of Faust that create_app changes, and no other."""

import warnings
from pathlib import Path

import faust
import pytest

from k2stream.app import BATCH_CHANNEL_EVENTS, NamedTopic, create_app
from k2stream.settings import Settings

DERIVED = {"broker_consumer", "broker_producer", "canonical_url", "reply_to", "tabledir"}
"""Follow from the others, or are new with every app."""


def options(app: faust.App) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Faust warns of old names when they are read
        return {name: getattr(app.conf, name, None) for name in app.conf.SETTINGS}


def test_exactly_these_defaults_of_faust_are_changed(tmp_path: Path) -> None:
    """A new Faust with other defaults, or a change here, must be looked at by somebody."""
    ours, faults = options(create_app(Settings(home=tmp_path))), options(faust.App("k2stream"))
    changed = {name: value for name, value in ours.items() if value != faults[name] and name not in DERIVED}
    assert [str(url) for url in changed.pop("broker")] == [f"embedded:{tmp_path}/log"]
    assert changed == {
        "Topic": NamedTopic,  # Faust's raises where its command line asks for the name of one with several
        "broker_heartbeat_interval": 0.5,
        "broker_session_timeout": 10.0,
        "datadir": tmp_path / "faust",  # Faust's is {id}-data in the working folder
        "stream_wait_empty": False,  # True waits without bound for our open window when partitions are revoked
        "topic_disable_leader": True,  # the leader's topic is of no use to us
        "web_bind": "127.0.0.1",  # Faust's is 0.0.0.0
        "web_host": "127.0.0.1",
    }


def test_defaults_that_we_rely_on_are_still_so(tmp_path: Path) -> None:
    """What is set although it is Faust's default today, and what must never be on."""
    conf = create_app(Settings(home=tmp_path)).conf
    assert conf.autodiscover is False
    assert str(conf.store) == "memory:"
    assert conf.consumer_auto_offset_reset == "earliest"
    assert str(conf.processing_guarantee) != "ProcessingGuarantee.EXACTLY_ONCE"
    assert conf.topic_partitions == Settings(home=tmp_path).partitions


def test_a_batch_topics_channel_is_short(tmp_path: Path) -> None:
    """Faust's 4,096 events would be gigabytes of batches."""
    topic = create_app(Settings(home=tmp_path)).batch_topic("trades", "market.*.trades.*")
    assert topic.maxsize == BATCH_CHANNEL_EVENTS == 16


@pytest.mark.parametrize("field", ["web_host", "web_port", "app_id", "partitions", "session_timeout_ms", "heartbeat_interval_ms"])
def test_settings_reach_faust(tmp_path: Path, field: str) -> None:
    """A setting that Faust never hears of is a lie of the README."""
    values = {"web_host": "127.0.0.2", "web_port": 7077, "app_id": "other", "partitions": 3, "session_timeout_ms": 7000, "heartbeat_interval_ms": 250}
    heard = {
        "web_host": "web_bind", "web_port": "web_port", "app_id": "id", "partitions": "topic_partitions",
        "session_timeout_ms": "broker_session_timeout", "heartbeat_interval_ms": "broker_heartbeat_interval",
    }  # fmt: skip
    settings = Settings(home=tmp_path, web_key="key", **{field: values[field]})  # type: ignore[arg-type] # one field of any type
    expected = values[field] / 1000 if field.endswith("_ms") else values[field]  # type: ignore[operator] # numbers where it counts
    assert getattr(create_app(settings).conf, heard[field]) == expected
