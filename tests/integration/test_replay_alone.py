"""Two replays at once would send the same attempt twice: the second is refused, on one home and on two."""

import time
from pathlib import Path

import pytest

from k2stream.deadletter.run import alone
from k2stream.dev.service import Service
from k2stream.errors import HomeError
from k2stream.settings import Settings


def homes(tmp_path: Path, redis_url: str, *namespaces: str) -> list[Settings]:
    """A home for each, over one catalog."""
    found = [
        Settings(home=tmp_path / str(n), redis_url=redis_url, catalog_uri="postgresql://catalog.example/lake", namespace=namespace)
        for n, namespace in enumerate(namespaces)
    ]
    for settings in found:
        settings.home.mkdir()
    return found


def test_a_second_replay_of_a_home_is_refused(tmp_path: Path) -> None:
    """Until the first is over."""
    (settings,) = homes(tmp_path, "", "market_data")
    with alone(settings), pytest.raises(HomeError, match="runs on"), alone(settings):
        pass
    with alone(settings):
        pass


@pytest.mark.redis
def test_a_second_replay_of_a_lake_is_refused_on_another_home(tmp_path: Path, redis: Service) -> None:
    """Until the first is over; another lake's replay is none of its business, and the agent's app id makes no difference."""
    url, namespace = redis.exports()["K2_REDIS_URL"], f"lake_{time.time_ns()}"
    first, second, other = homes(tmp_path, url, namespace, namespace, f"{namespace}_b")
    second = second.model_copy(update={"app_id": f"{second.app_id}-replay"})
    with alone(first):
        with pytest.raises(HomeError, match="another home"), alone(second):
            pass
        with alone(other):
            pass
    with alone(second):
        pass


def test_a_redis_that_is_away_leaves_the_lock_of_the_home(tmp_path: Path) -> None:
    """A replay needs no Redis."""
    (settings,) = homes(tmp_path, "redis://127.0.0.1:1/0", "market_data")
    with alone(settings), pytest.raises(HomeError), alone(settings):
        pass
