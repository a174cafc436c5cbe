"""State in Redis or Valkey.

    {app}:{topic/partition}:state   hash: version, uuid, sequence, snapshot, next, floor, chunks (their count), tracker
    {app}:{topic/partition}:keys    sorted set by newest event time: min and max time (int64 LE each), then 16 bytes a key

The braces are a hash tag, so that one script may touch both on a cluster. Numbers stay below 2^53, but for floors, which
are compared as doubles and stored as given.
"""

import math
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
import structlog
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from k2stream.address import without_password
from k2stream.errors import StateError
from k2stream.records import TopicPartition
from k2stream.state.disk_watch import DiskWatch
from k2stream.state.store import KeyChunk, Saved, Stamp, Update

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
AWAY_SECONDS = 5.0

E_AWAY = "Redis at {where} did not answer: {cause}. Nothing is lost; the tables hold it."
E_PASSWORD = "Redis at {where} wants another password: {cause} Correct K2_REDIS_PASSWORD, or the password in K2_REDIS_URL; until then no state is kept."  # noqa: S105 # a sentence

VERSION = b"1"
_TIMES = struct.Struct("<qq")

_SAVE = """
local state, keys = KEYS[1], KEYS[2]
local version, uuid, sequence, snapshot, next = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local since, floor, floor_alone, tracker, newest, chunk = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local found = redis.pcall('HMGET', state, 'version', 'uuid', 'sequence', 'next', 'floor', 'chunks')
local whole = false
if not found.err and found[1] == version and found[2] == uuid and tonumber(found[3]) then
  if tonumber(sequence) < tonumber(found[3]) then return 0 end
  if tonumber(sequence) == tonumber(found[3]) then return 1 end
  local count = redis.pcall('ZCARD', keys)
  whole = found[4] == since and tonumber(found[5]) and type(count) == 'number' and count == tonumber(found[6])
end
if whole then
  if tonumber(found[5]) > tonumber(floor) then floor = found[5] end
else
  redis.call('DEL', state, keys)
  if tonumber(floor_alone) > tonumber(floor) then floor = floor_alone end
end
if chunk ~= '' then redis.call('ZADD', keys, newest, chunk) end
redis.call('ZREMRANGEBYSCORE', keys, '-inf', '(' .. floor)
redis.call('HSET', state, 'version', version, 'uuid', uuid, 'sequence', sequence, 'snapshot', snapshot, 'next', next,
  'floor', floor, 'chunks', redis.call('ZCARD', keys), 'tracker', tracker)
return 1
"""
"""Compare and set of one partition, both keys in one step: 0 refused, 1 stored (or stored before)."""


class RedisStore:
    """StateStore over one connection pool.

    A Redis that is silent holds a commit up once, for `ANSWER_SECONDS` at most, and is then left alone for `AWAY_SECONDS`: saves fail at
    once, for the tables hold all state. `on_lost` is called before the StateError is raised; it says whether it started the server again.
    """

    def __init__(
        self,
        url: str,
        *,
        app_id: str,
        password: str = "",
        ca_file: str = "",
        on_lost: Callable[[], bool] = lambda: False,
        on_close: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app_id, self._on_lost, self._on_close, self._monotonic = app_id, on_lost, on_close, monotonic
        self._where = without_password(url)
        self._disk = DiskWatch(monotonic=monotonic)
        self._away_until, self._away_for = -math.inf, ""
        retry = Retry(ConstantBackoff(0.05), 1, (redis.ConnectionError,))  # an idle connection may be stale; a silent server is not asked twice
        tls = {"ssl_ca_certs": ca_file} if ca_file else {}
        self._client = redis.Redis.from_url(
            url, password=password or None, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=CONNECT_SECONDS, retry=retry, **tls
        )

    def ping(self) -> None:
        """Returns if Redis answers, and with our password."""
        (answer,) = self._ask([("PING",)])
        if isinstance(answer, Exception):
            raise StateError(f"Redis at {self._where} answers: {answer}. Mend K2_REDIS_URL.") from answer

    def load(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, Saved]:
        """What is stored and readable of these partitions."""
        wanted = list(tps)
        commands: list[tuple[Any, ...]] = []
        for tp in wanted:
            state, keys = self._names(tp)
            commands += [("HGETALL", state), ("ZRANGE", keys, 0, -1)]
        answers = self._ask(commands)
        read = {tp: _saved(tp, *answers[2 * i : 2 * i + 2]) for i, tp in enumerate(wanted)}
        return {tp: saved for tp, saved in read.items() if saved is not None}

    def save(self, updates: Mapping[TopicPartition, Update]) -> set[TopicPartition]:
        """Store what is newer, each partition by itself; returns the partitions refused."""
        if self._monotonic() < self._away_until:
            raise StateError(self._away_for)
        commands: list[tuple[Any, ...]] = [("EVAL", _SAVE, 2, *self._names(tp), *_arguments(update)) for tp, update in updates.items()]
        question = self._disk.question() if commands else None
        answers = self._ask([question, *commands] if question else commands)
        if question:
            self._disk.take(answers.pop(0))
        for answer in answers:
            if isinstance(answer, Exception):
                raise StateError(f"Redis at {self._where} does not store: {answer}. Mend it or unset K2_REDIS_URL.") from answer
        if commands:
            self._disk.saved()
        return {tp for tp, answer in zip(updates, answers, strict=True) if answer == 0}

    def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """What a script answers; raises StateError, at once while Redis is left alone."""
        if self._monotonic() < self._away_until:
            raise StateError(self._away_for)
        (answer,) = self._ask([("EVAL", script, len(keys), *keys, *arguments)])
        if isinstance(answer, Exception):
            raise StateError(f"Redis at {self._where} does not run a script: {answer}. Mend it or unset K2_REDIS_URL.") from answer
        return answer

    def close(self) -> None:
        """Close the connections, then the server if it is ours."""
        self._client.close()
        self._on_close()

    def _names(self, tp: TopicPartition) -> tuple[str, str]:
        tag = f"{self._app_id}:{{{tp.topic}/{tp.partition}}}"
        return f"{tag}:state", f"{tag}:keys"

    def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Answers of one round trip; a command's own error stands as its answer."""
        if not commands:
            return []
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
                answers: list[Any] = pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as exc:
            raise self._lost(exc) from exc
        for answer in answers:
            if isinstance(answer, (redis.ConnectionError, redis.TimeoutError)):
                raise self._lost(answer) from answer
        self._away_until = -math.inf
        return answers

    def _lost(self, exc: Exception) -> StateError:
        text = E_PASSWORD if isinstance(exc, redis.AuthenticationError) else E_AWAY
        self._away_for = text.format(where=self._where, cause=exc)
        self._disk.lost()
        if not self._on_lost():
            self._away_until = self._monotonic() + AWAY_SECONDS
        return StateError(self._away_for)


def _arguments(update: Update) -> tuple[str | bytes | int, ...]:
    stamp, chunk = update.stamp, update.chunk
    packed = b"" if chunk is None else _TIMES.pack(chunk.min_time_us, chunk.max_time_us) + chunk.hashes
    newest = 0 if chunk is None else chunk.max_time_us
    numbers = (stamp.sequence_number, stamp.snapshot_id, stamp.next, update.since, update.floor_us, update.floor_alone_us)
    return (VERSION, stamp.table_uuid, *numbers, update.tracker, newest, packed)


def _saved(tp: TopicPartition, state: Any, chunks: Any) -> Saved | None:
    """A stored value as state; None, with a line in the log, if it is not whole and ours."""
    if not state and not chunks:
        return None
    try:
        fields = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
        if fields[b"version"] != VERSION or int(fields[b"chunks"]) != len(chunks):
            raise ValueError(f"version {fields[b'version']!r}, {len(chunks)} of {fields[b'chunks']!r} chunks")
        numbers = (int(fields[name]) for name in (b"sequence", b"snapshot", b"next"))
        stamp = Stamp(fields[b"uuid"].decode(), *numbers)
        return Saved(stamp, fields[b"tracker"], [_chunk(c) for c in chunks], int(fields[b"floor"]))
    except (KeyError, ValueError, TypeError, struct.error) as exc:
        log.warning("state.unreadable", topic=tp.topic, partition=tp.partition, cause=repr(exc), then="read from the tables")
        return None


def _chunk(packed: bytes) -> KeyChunk:
    oldest, newest = _TIMES.unpack_from(packed)
    hashes = packed[_TIMES.size :]
    if len(hashes) % 16:
        raise ValueError(f"{len(hashes)} bytes are no whole number of keys")
    return KeyChunk(newest, oldest, hashes)
