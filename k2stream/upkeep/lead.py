"""Who asks for turns and leads: through Redis where workers share one, else under K2_HOME."""

from collections.abc import Iterator
from contextlib import contextmanager

from k2stream.clock import SystemClock
from k2stream.lake.home_turn import HomeTurn
from k2stream.lake.turn import Turn
from k2stream.settings import Settings
from k2stream.state.open import open_store
from k2stream.state.redis import RedisStore
from k2stream.state.turn import RedisTurn
from k2stream.upkeep.lease import file_lease, redis_lease

REST_SHARE = 0.9
"""Of the time between two runs nobody leads for so much: timers of workers are never quite equal."""


@contextmanager
def leading(settings: Settings, *, is_asked: bool) -> Iterator[bool]:
    """True inside if this process is to do it; always if nobody asked whether it leads."""
    rest_ms = int(settings.upkeep_ms * REST_SHARE)
    if not is_asked:
        yield True
    elif store := shared_redis(settings):
        try:
            with redis_lease(store.evaluate, settings.app_id, rest_ms=rest_ms) as is_ours:
                yield is_ours
        finally:
            store.close()
    else:
        folder = settings.home_path("upkeep")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lease(folder / "lease", rest_ms=rest_ms, now_us=SystemClock().now_us()) as is_ours:
            yield is_ours


@contextmanager
def turns_of(settings: Settings) -> Iterator[Turn]:
    """The turns that workers take, so that a swap and their windows do not cost each other attempts."""
    store = shared_redis(settings)
    if store is None:
        yield HomeTurn(settings.home_path("upkeep"))
        return
    try:
        yield RedisTurn(store.evaluate, settings.app_id)
    finally:
        store.close()


def shared_redis(settings: Settings) -> RedisStore | None:
    """The Redis that workers share; None where each has its own state."""
    store = open_store(settings) if settings.redis_url else None
    return store if isinstance(store, RedisStore) else None
