"""Turns of the workers that commit to one table: a short lease in Redis, given in the order in which they came.

    {app}:{turn table}:lease   the holder's token; expires by itself, so a holder that died costs the others a lease at most
    {app}:{turn table}:queue   sorted set: tokens of those who wait, by the number they drew
    {app}:{turn table}:heard   sorted set: the same tokens, by the moment at which they last asked (ms, Redis's clock)

Advice only. A Redis that is away, a lease that ran out, a queue that does not move: the commit is made all the same, and the table's
required head decides.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import structlog

from k2stream import metrics
from k2stream.clock import Deadline
from k2stream.errors import StateError

log = structlog.get_logger(__name__)

LEASE_MS = 2_000
"""More than an attempt takes; so long do the others wait for a holder that died."""
SILENT_MS = 500
"""Who waits asks every few milliseconds; one that was not heard for so long is not waited for."""
WAIT_SECONDS = 10.0
"""Nobody waits longer, whatever the queue says."""
FIRST_POLL_SECONDS, NEXT_POLL_SECONDS = 0.005, 0.02
"""How often the first of the queue asks, and, for each place behind it, how much less often the others do."""
LAST_POLL_SECONDS = SILENT_MS / 4000
"""Nobody asks less often, however long the queue: who is silent loses the place."""
GONE_MS = 60_000
"""A queue that nobody stands in any more."""

Evaluate = Callable[[str, Sequence[str], Sequence[str | int]], Any]
"""Runs a script with these keys and arguments; raises StateError if Redis does not."""

_ASK = """
local lease, queue, heard = KEYS[1], KEYS[2], KEYS[3]
local token, lease_ms, silent_ms, gone_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', heard, now, token)
for _, range in ipairs({{'-inf', now - silent_ms}, {now + silent_ms, '+inf'}}) do
  for _, silent in ipairs(redis.call('ZRANGEBYSCORE', heard, range[1], range[2])) do
    redis.call('ZREM', queue, silent)
    redis.call('ZREM', heard, silent)
  end
end
if not redis.call('ZSCORE', queue, token) then
  local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')
  redis.call('ZADD', queue, (tonumber(last[2]) or 0) + 1, token)
end
local place = redis.call('ZRANK', queue, token)
if place == 0 and redis.call('SET', lease, token, 'NX', 'PX', lease_ms) then
  redis.call('ZREM', queue, token)
  redis.call('ZREM', heard, token)
  return -1
end
redis.call('PEXPIRE', queue, gone_ms)
redis.call('PEXPIRE', heard, gone_ms)
return place
"""
"""The place in the queue, 0 for the first; -1: the turn is ours. Moments from a clock that was set since are no moments."""

_GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[3], ARGV[1])
"""


def poll_seconds(place: int) -> float:
    """How long one at this place of the queue waits before it asks again."""
    return min(FIRST_POLL_SECONDS + NEXT_POLL_SECONDS * place, LAST_POLL_SECONDS)


class RedisTurn:
    """Gives turns to the threads of one worker; a call is one turn."""

    def __init__(self, evaluate: Evaluate, app_id: str, *, lease_ms: int = LEASE_MS, wait_seconds: float = WAIT_SECONDS) -> None:
        self._evaluate, self._app_id, self._lease_ms, self._wait_seconds = evaluate, app_id, lease_ms, wait_seconds

    @contextmanager
    def __call__(self, table: str, deadline: Deadline) -> Iterator[None]:
        """Wait for the turn of `table`, for a while; what is inside is done with it or without."""
        token, keys = uuid4().hex, self._names(table)
        started = time.perf_counter()
        is_ours = self._wait(keys, token, Deadline.after(min(self._wait_seconds, deadline.remaining_seconds())))
        metrics.TURN_WAIT.labels(table).observe(time.perf_counter() - started)
        if not is_ours:
            metrics.TURNS_MISSED.labels(table).inc()
        try:
            yield
        finally:
            with suppress(StateError):  # then it expires
                self._evaluate(_GIVE_BACK, keys, (token,))

    def _wait(self, keys: Sequence[str], token: str, bound: Deadline) -> bool:
        """True once the turn is ours; False if it cannot be had."""
        while True:
            try:
                place = int(self._evaluate(_ASK, keys, (token, self._lease_ms, SILENT_MS, GONE_MS)))
            except StateError as exc:
                log.debug("turn.unknown", cause=str(exc))
                return False
            if place < 0:
                return True
            if bound.is_over():
                log.info("turn.not_come", waited_seconds=self._wait_seconds, place=place, then="committed without it")
                return False
            time.sleep(poll_seconds(place))

    def _names(self, table: str) -> tuple[str, str, str]:
        tag = f"{self._app_id}:{{turn {table}}}"
        return f"{tag}:lease", f"{tag}:queue", f"{tag}:heard"
