"""`k2 feed recorded` makes what it needs and says what it did."""

from collections import Counter
from pathlib import Path

import pytest

from k2stream.errors import SettingsError
from k2stream.playback import publish_recorded
from k2stream.settings import Settings
from k2stream.transport.reader import read_topics

TOPICS = ("market.equities.trades.asx", "market.crypto.trades.binance")


def test_a_first_feed_makes_topics_and_a_second_adds_the_same_again(tmp_path: Path) -> None:
    """Nothing needs to be there before; publishing twice leaves every record twice."""
    settings = Settings(home=tmp_path)
    told: list[int] = []
    first = publish_recorded(settings, rows=300, progress=told.append)
    assert sum(part.records for part in first) == sum(told) == 300
    assert publish_recorded(settings, rows=300) == first
    found = Counter(record.topic for record in read_topics(settings, TOPICS))
    assert found == {part.topic: 2 * (part.records + part.markers) for part in first}


def test_a_log_of_an_unknown_kind_is_one_sentence(tmp_path: Path) -> None:
    """A broker that we do not speak with is refused before anything is published."""
    with pytest.raises(SettingsError, match="K2_BROKER: expected"):
        publish_recorded(Settings(home=tmp_path, broker="amqp://localhost"), rows=1)
