"""What can happen to the services that workers need: gone, wiped, slow, failing, answering nothing; on the workers' way to them, or for real."""

from collections.abc import Mapping
from functools import partial

from k2stream.chaos.fault import Fault, Hit
from k2stream.chaos.http_proxy import Effect, HttpProxy
from k2stream.chaos.http_proxy import Fault as HttpFault
from k2stream.chaos.redis_database import RedisDatabase
from k2stream.chaos.scene import Scene
from k2stream.chaos.servers import Server
from k2stream.chaos.tcp_proxy import TcpProxy
from k2stream.chaos.worker_faults import names

GONE_SECONDS = 5.0
BLINK_SECONDS = 0.2
"""Longer than a proxy takes to notice."""
MISSED_SECONDS = 15.0
"""A request that is to be hit comes with the next commit or the one after."""
START_SECONDS = 30.0
"""A worker needs its time to come to its first question."""
LOST_TIMES = 3
MOST_COUNTED = 6
"""A burst of errors is no hundred faults."""
ERROR_SHARE = 0.3
SLOW_MS = 300
COMMIT = b"COMMIT"
"""Part of what SQLAlchemy's drivers send for it, whatever the database."""

TABLE_COMMITS = {"method": "POST", "path": "/tables/"}


def redis_faults(proxy: TcpProxy, database: RedisDatabase) -> list[Fault]:
    """Redis through a proxy, and wiped."""
    return [
        Fault("redis wiped", "FLUSHDB while workers run", partial(wipe, database), weight=3),
        Fault("redis wiped at a kill", "FLUSHDB, and a worker that would have needed it", partial(wipe_and_kill, database), weight=4),
        Fault("redis gone", f"Redis answers nobody for {GONE_SECONDS:.0f} s", partial(cut, proxy), weight=2),
        Fault("redis gone at a kill", "a worker takes partitions over without Redis", partial(cut_and_kill, proxy), weight=2),
    ]


def sql_faults(proxy: TcpProxy) -> list[Fault]:
    """A SQL catalog through a proxy."""
    return [
        Fault("catalog loses replies", "COMMIT reaches the database, its answer is lost", partial(cut_commits, proxy, True), weight=8),
        Fault("catalog loses commits", "the connection breaks before COMMIT reaches the database", partial(cut_commits, proxy, False), weight=6),
        Fault("catalog cut", "all connections to the catalog break at once", partial(cut_once, proxy), weight=4),
        Fault("catalog gone", f"the catalog answers nobody for {GONE_SECONDS:.0f} s", partial(cut, proxy), weight=2),
    ]


def rest_faults(proxy: HttpProxy) -> list[Fault]:
    """A REST catalog through a proxy."""
    lost = HttpFault(Effect.LOST_REPLY, times=LOST_TIMES, **TABLE_COMMITS)  # type: ignore[arg-type] # words only
    effects = (Effect.ERROR_AFTER, Effect.ERROR_INSTEAD)
    errors = tuple(HttpFault(effect, status=status, **TABLE_COMMITS) for effect in effects for status in (500, 502, 504))  # type: ignore[arg-type] # words only
    return [
        Fault("catalog loses replies", "a commit lands, its answer is lost", partial(until_hit, proxy, (lost,)), weight=6),
        Fault("catalog errors", "500, 502, 504 to commits that landed and to commits that did not", partial(until_hit, proxy, errors), weight=4),
        Fault("catalog gone", f"the catalog resets every connection for {GONE_SECONDS:.0f} s", partial(http_gone, proxy), weight=2),
    ]


def s3_faults(proxy: HttpProxy) -> list[Fault]:
    """An object store through a proxy."""
    lost = HttpFault(Effect.LOST_REPLY, method="PUT", times=LOST_TIMES)
    failing = tuple(HttpFault(Effect.ERROR_INSTEAD, status=status, times=0, probability=ERROR_SHARE / 2) for status in (500, 503))
    slow = HttpFault(Effect.DELAY, delay_ms=SLOW_MS, times=0)
    return [
        Fault("s3 loses replies", "an object is stored, the answer is lost", partial(until_hit, proxy, (lost,)), weight=6),
        Fault("s3 errors", f"500 or 503 to {ERROR_SHARE:.0%} of all requests for {GONE_SECONDS:.0f} s", partial(http_during, proxy, failing), weight=6),
        Fault("s3 slow", f"every request takes {SLOW_MS} ms longer for {GONE_SECONDS:.0f} s", partial(http_during, proxy, (slow,))),
        Fault("s3 gone", f"S3 resets every connection for {GONE_SECONDS:.0f} s", partial(http_gone, proxy), weight=2),
    ]


def registry_faults(proxy: HttpProxy) -> list[Fault]:
    """A registry through a proxy: a worker that knows its schemas does not miss it, a new one waits."""
    return [Fault("registry gone", f"no registry for {GONE_SECONDS:.0f} s, and a worker that starts without one", partial(registry_gone, proxy))]


def server_faults(servers: Mapping[str, Server], *, away_seconds: float) -> list[Fault]:
    """Servers that may really be broken."""
    faults = []
    for name, server in servers.items():
        if server.how == "killed":
            faults.append(Fault(f"{name} restarts", f"{name} is killed and started again", partial(down_for, server, 0.0)))
        if name == "kafka":
            faults.append(Fault("kafka gone", f"no broker for {away_seconds:.0f} s", partial(down_for, server, away_seconds), weight=0.3))
        elif server.how == "stopped":
            faults.append(Fault(f"{name} hangs", f"{name} sleeps for {GONE_SECONDS:.0f} s", partial(down_for, server, GONE_SECONDS)))
    return faults


def wipe(database: RedisDatabase, scene: Scene) -> Hit:
    scene.wait(scene.random.uniform(0, 1))
    return Hit(f"{database.wipe()} keys")


def wipe_and_kill(database: RedisDatabase, scene: Scene) -> Hit:
    (victim,) = scene.victims(1)
    keys = database.wipe()
    scene.crew.kill(victim)
    return Hit(f"{keys} keys, {names(victim)}", 2)


def cut(proxy: TcpProxy, scene: Scene) -> Hit:
    proxy.refuse()
    scene.wait(GONE_SECONDS)
    proxy.admit()
    return Hit(f"for {GONE_SECONDS:.0f} s")


def cut_once(proxy: TcpProxy, scene: Scene) -> Hit:
    scene.wait(scene.random.uniform(0, 1))
    proxy.refuse()
    scene.wait(BLINK_SECONDS)
    proxy.admit()
    return Hit("once")


def cut_and_kill(proxy: TcpProxy, scene: Scene) -> Hit:
    (victim,) = scene.victims(1)
    proxy.refuse()
    scene.crew.kill(victim)
    scene.wait(scene.ground.settings.session_timeout_ms / 1000 + 2)
    proxy.admit()
    return Hit(names(victim), 2)


def cut_commits(proxy: TcpProxy, is_forwarded: bool, scene: Scene) -> Hit:
    """One after another, so that each is a commit of its own."""
    before = proxy.cuts
    for number in range(1, LOST_TIMES + 1):
        proxy.cut_at(COMMIT, is_forwarded=is_forwarded)
        if not scene.until(lambda number=number: proxy.cuts >= before + number, MISSED_SECONDS):  # type: ignore[misc] # lambda default
            break
    return Hit(f"{proxy.cuts - before} commits", proxy.cuts - before)


def until_hit(proxy: HttpProxy, faults: tuple[HttpFault, ...], scene: Scene) -> Hit:
    proxy.inject(*faults)
    wanted = sum(fault.times for fault in faults)
    scene.until(lambda: proxy.hits >= wanted, MISSED_SECONDS)
    return _cleared(proxy)


def http_during(proxy: HttpProxy, faults: tuple[HttpFault, ...], scene: Scene) -> Hit:
    proxy.inject(*faults)
    scene.wait(GONE_SECONDS)
    return _cleared(proxy)


def http_gone(proxy: HttpProxy, scene: Scene) -> Hit:
    return http_during(proxy, (HttpFault(Effect.RESET, times=0),), scene)


def registry_gone(proxy: HttpProxy, scene: Scene) -> Hit:
    """Longer than a start, so that the new worker meets it."""
    (victim,) = scene.victims(1)
    proxy.inject(HttpFault(Effect.RESET, times=0))
    scene.crew.kill(victim)
    scene.until(lambda: proxy.hits > 0, START_SECONDS)
    scene.wait(GONE_SECONDS)
    return Hit(f"{names(victim)}, {_cleared(proxy).says}", 2)


def down_for(server: Server, seconds: float, scene: Scene) -> Hit:
    server.take_down()
    try:
        scene.wait(seconds)
    finally:
        server.bring_up()
    return Hit(f"{server.how}, away {seconds:.0f} s" if seconds else server.how)


def _cleared(proxy: HttpProxy) -> Hit:
    hits = proxy.hits
    proxy.clear()
    return Hit(f"{hits} requests", min(hits, MOST_COUNTED))


