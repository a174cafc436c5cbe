"""One aiokafka client: opened when it is first needed, asked again while that is harmless, and never waited for without bound."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupLoadInProgressError,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    NotControllerError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

from k2stream.clock import Deadline
from k2stream.errors import LogRefused, TransportError
from k2stream.transport.kafka_access import why_away

E_UNREACHABLE = "Kafka at {bootstrap} does not {action}: {cause}"
E_REFUSED = "Kafka at {bootstrap} refused to {action}: {cause}"

OPEN_SECONDS = 3.0
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0
MIN_SECONDS = 0.05
NOT_DONE = (
    GroupLoadInProgressError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    NotControllerError,
    NotLeaderForPartitionError,
    UnknownTopicOrPartitionError,
)
"""Answers that prove that nothing was done: asking again cannot do it twice."""
REFUSED = (InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError)
"""Of the records themselves: whoever sends them again is refused again."""
NO_ANSWER = (KafkaConnectionError, RequestTimedOutError, TimeoutError)
"""It may have been done: to be asked again only where doing it twice is harmless."""

Answer = TypeVar("Answer")


class KafkaLink:
    """To be used on one event loop, by any number of tasks."""

    def __init__(self, options: Mapping[str, Any], *, request_seconds: float) -> None:
        """`options` as `access_options` gives them; a connection on which a request takes longer than `request_seconds` is given up."""
        self._options = dict(options)
        self._request_seconds = request_seconds
        self.bootstrap = ",".join(self._options["bootstrap_servers"])
        self._client: AIOKafkaClient | None = None
        self._opening = asyncio.Lock()
        self._left: set[asyncio.Future[Any]] = set()

    async def ask(self, question: Callable[[AIOKafkaClient], Awaitable[Answer]], action: str, *, seconds: float, is_repeatable: bool) -> Answer:
        """Answer of `question(client)`, asked again up to `seconds` while it is certain that nothing was done, or always where `is_repeatable`.

        A broker that never answered yet is waited for OPEN_SECONDS only: whoever starts wants to know. TransportError if no answer is had:
        with the cause (LogRefused where asking again is no use), or, where it is not repeatable, if nobody knows whether it was done.
        """
        deadline, opening, pause = Deadline.after(seconds), Deadline.after(min(seconds, OPEN_SECONDS)), RETRY_SECONDS
        while True:
            try:
                return await (self._within(deadline, question) if is_repeatable else self._once(question))
            except (KafkaError, TimeoutError) as exc:
                if not _may_ask_again(exc, is_repeatable=is_repeatable):
                    kind = LogRefused if isinstance(exc, REFUSED) else TransportError
                    raise kind(E_REFUSED.format(bootstrap=self.bootstrap, action=action, cause=str(exc) or type(exc).__name__)) from exc
                if (deadline if self._client else opening).remaining_seconds() <= pause:
                    why = await why_away(self._options) or str(exc) or type(exc).__name__
                    raise TransportError(E_UNREACHABLE.format(bootstrap=self.bootstrap, action=action, cause=why)) from exc
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)

    async def close(self) -> None:
        """Let go of the connections; calling it twice is harmless."""
        left, self._left = self._left, set()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _once(self, question: Callable[[AIOKafkaClient], Awaitable[Answer]]) -> Answer:
        return await question(await self._open())

    async def _within(self, deadline: Deadline, question: Callable[[AIOKafkaClient], Awaitable[Answer]]) -> Answer:
        """TimeoutError past the deadline. The request itself goes on: only its own time-out makes aiokafka give a dead connection up."""
        task = asyncio.create_task(self._once(question))
        self._left.add(task)
        task.add_done_callback(self._is_left_no_more)
        done, _ = await asyncio.wait({task}, timeout=max(MIN_SECONDS, deadline.remaining_seconds()))
        if not done:
            raise TimeoutError
        return task.result()

    def _is_left_no_more(self, task: asyncio.Future[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody may wait for it any more

    async def _open(self) -> AIOKafkaClient:
        """The client, connected; NodeNotReadyError while nobody answers."""
        async with self._opening:
            if self._client is None:
                client = AIOKafkaClient(client_id="k2stream", request_timeout_ms=int(self._request_seconds * 1000), **self._options)
                try:
                    await asyncio.wait_for(client.bootstrap(), CONNECT_SECONDS)
                except (KafkaConnectionError, TimeoutError) as exc:
                    await client.close()
                    raise NodeNotReadyError(str(exc)) from exc
                except asyncio.CancelledError:
                    await client.close()
                    raise
                self._client = client
            return self._client


def _may_ask_again(exc: Exception, *, is_repeatable: bool) -> bool:
    if isinstance(exc, NOT_DONE):
        return True
    # The bare one is what a client says that reaches none of the brokers it knows.
    return is_repeatable and (isinstance(exc, NO_ANSWER) or type(exc) is KafkaError)
