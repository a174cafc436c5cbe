"""One upkeep at a time in a group of workers, and no more often than asked: a lease in Redis, or a lock under K2_HOME.

Advice only, as turns are: two that both think they lead lose some work, never a row. The required head of every commit is the guard.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import structlog

from k2stream.clock import Deadline
from k2stream.errors import StateError
from k2stream.state.turn import Evaluate

log = structlog.get_logger(__name__)

LEASE_MS = 30_000
"""A leader that died is followed after so long at most."""
LIMIT_SECONDS = 3_600.0
"""Nobody leads for longer at a stretch: one that hangs must not keep the lead. What a long run has done by then holds, the next goes on."""

_TAKE = """
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[2], '1', 'PX', ARGV[2]) end
return redis.call('DEL', KEYS[1])
"""


@contextmanager
def redis_lease(evaluate: Evaluate, app_id: str, *, rest_ms: int, name: str = "upkeep", limit_seconds: float = LIMIT_SECONDS) -> Iterator[bool]:
    """True inside if this process leads; when it has done so nobody does for `rest_ms`. Without an answer of Redis everybody may lead.

    There is one leader for each `name` of an app.
    """
    tag, token, is_over = f"{app_id}:{{{name}}}", uuid4().hex, Event()
    keys = (f"{tag}:lease", f"{tag}:rest")
    try:
        is_ours = bool(evaluate(_TAKE, keys, (token, LEASE_MS)))
    except StateError as exc:
        log.info("lease.no_answer", lease=name, cause=str(exc), then="done without it")
        yield True
        return
    keeper = Thread(target=_hold, args=(evaluate, keys, token, is_over, Deadline.after(limit_seconds)), name=f"{name}-lease", daemon=True)
    try:
        if is_ours:
            keeper.start()
        yield is_ours
    finally:
        is_over.set()
        if is_ours:
            with suppress(StateError):  # then it expires
                evaluate(_GIVE_BACK, keys, (token, rest_ms))


def _hold(evaluate: Evaluate, keys: Sequence[str], token: str, is_over: Event, limit: Deadline) -> None:
    while not is_over.wait(LEASE_MS / 3000) and not limit.is_over():
        with suppress(StateError):
            evaluate(_TAKE, keys, (token, LEASE_MS))


@contextmanager
def file_lease(path: Path, *, rest_ms: int, now_us: int) -> Iterator[bool]:
    """The same among the processes of one K2_HOME; the lock goes with its process, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        if now_us - _done_at_us(descriptor) < rest_ms * 1000:
            yield False
            return
        yield True
        if rest_ms:
            os.pwrite(descriptor, f"{now_us:020}".encode(), 0)
    finally:
        os.close(descriptor)


def _done_at_us(descriptor: int) -> int:
    """When the last one began; 0 if nobody has, or if the file says nothing."""
    text = os.pread(descriptor, 20, 0)
    return int(text) if text.isdigit() else 0
