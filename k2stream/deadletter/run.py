"""A replay from a command line: alone on its lake, from its first look to its last outcome."""

import asyncio
import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import islice

from k2stream.address import without_password
from k2stream.crash import on_step_of
from k2stream.deadletter.replay import Replayed, replay
from k2stream.deadletter.show import rehearsed
from k2stream.deadletter.standing import DeadLetters
from k2stream.deadletter.trail import Outcome
from k2stream.errors import HomeError
from k2stream.home import Home
from k2stream.query.letters import Selection
from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import LogSink
from k2stream.upkeep.lead import shared_redis
from k2stream.upkeep.lease import redis_lease

AT_MOST = 10_000
"""Letters of one round of the agent; what is left waits for the next."""
WAIT_SECONDS = 60.0


def replay_now(settings: Settings, selection: Selection, *, rate: float | None, wait_seconds: float) -> Replayed:
    """Replay the open letters of a selection; raises HomeError if another replay runs, and K2Error otherwise."""
    Home.open(settings.home)
    with alone(settings), DeadLetters(settings) as letters:
        return asyncio.run(_replay(letters, selection, rate, wait_seconds))


async def _replay(letters: DeadLetters, selection: Selection, rate: float | None, wait_seconds: float) -> Replayed:
    sink = open_sink(letters.settings)
    try:
        return await replay(letters, sink, selection, rate=rate, wait_seconds=wait_seconds, on_step=on_step_of(letters.settings.crash_at))
    finally:
        await sink.close()


def mended_of(settings: Settings, reasons: Sequence[str], most: int) -> list[str]:
    """First origins of `most` open letters of these reasons that would become a row now, however many come before them that would not.

    Blocks. Raises K2Error.
    """
    with DeadLetters(settings) as letters:
        passing = (letter.first_origin for letter, verdict in rehearsed(letters, Selection(reasons=reasons)) if verdict.outcome is Outcome.ROW)
        return list(islice(passing, most))


async def replay_mended(settings: Settings, sink: LogSink) -> Replayed | None:
    """Replay what `replay_reasons` name and would pass now; None if that is nothing. Raises K2Error as replay_now does."""
    reasons = settings.replayed_reasons()
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, alone(settings))
        origins = await asyncio.to_thread(mended_of, settings, reasons, AT_MOST) if reasons else []
        if not origins:
            return None
        with DeadLetters(settings, who="replay agent") as letters:
            step = on_step_of(settings.crash_at)
            return await replay(letters, sink, Selection(origins=origins), rate=settings.replay_rate, wait_seconds=WAIT_SECONDS, on_step=step)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """No other replay of this lake meanwhile, on this home or on others whose workers share a Redis. Blocks; raises HomeError."""
    with _alone_on_home(settings), _alone_in_group(settings):
        yield


@contextmanager
def _alone_in_group(settings: Settings) -> Iterator[None]:
    """A lease: a replay that died is followed after half a minute. Without an answer of Redis the lock of the home is all there is."""
    store = shared_redis(settings)
    if store is None:
        yield
        return
    lake = f"{without_password(settings.catalog_uri) or settings.home.absolute()} {settings.namespace}"
    try:
        with redis_lease(store.evaluate, sha256(lake.encode()).hexdigest()[:16], name="replay", rest_ms=0, limit_seconds=math.inf) as is_ours:
            if not is_ours:
                raise HomeError("A replay of this lake runs on another home. Wait for it, or end it and wait half a minute; nothing is lost by that.")
            yield
    finally:
        store.close()


@contextmanager
def _alone_on_home(settings: Settings) -> Iterator[None]:
    """The kernel lets go when the process dies."""
    path = settings.home_path("replay.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise HomeError(f"A replay runs on {path.parent} already. Wait for it, or end it; nothing is lost by that.") from exc
        yield
    finally:
        os.close(lock)


def replayed_lines(done: Replayed) -> list[str]:
    """What a replay did, for a person."""
    lines = [f"published {done.published:,} in {done.seconds:.1f} s"]
    if done.recovered:
        lines.append(f"{done.recovered:,} more stood in the log from a replay that was cut off; they were not published again")
    lines += [f"  {count:,} became {WORDS.get(outcome, outcome)}" for outcome, count in sorted(done.outcomes.items())]
    if done.homeless:
        lines.append(f"  {done.homeless:,} stay: their topic, or its partition, is no longer there; `k2 dlq park` puts them aside")
    if done.waiting:
        lines.append(f"  {done.waiting:,} wait for a worker's commit; `k2 dlq list --state under_way` shows them")
    return lines


WORDS = {"row": "a row", "duplicate": "a duplicate: the table has their row", "dead": "a letter again, with an attempt more", "marker": "a marker"}
