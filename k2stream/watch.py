"""What a worker asks its services while it runs, and the one line that says what it waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from k2stream.errors import K2Error
from k2stream.health import Health

log = structlog.get_logger(__name__)

EVERY_SECONDS = 5.0
ANSWER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A service that may be away without anybody noticing it at once."""

    name: str
    """Of the cause that `/healthz` shows while it does not answer."""
    where: str
    """The service and its address, without a password."""
    ask: Callable[[], Awaitable[object]]
    """Raises K2Error if it does not answer."""
    is_told_by_use: bool = True
    """Whoever uses it tells `Health`: then it is asked until it answered once, and while its cause stands."""


class Watch:
    """Asks services, for one worker."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._asked: dict[str, Asked] = {}
        self._answered: set[str] = set()

    def add(self, asked: Asked) -> None:
        """Ask it from now on; a second one of the same name takes the place of the first."""
        self._asked[asked.name] = asked

    async def ask_all(self) -> None:
        """One round; a service that does not answer in time is red."""
        await asyncio.gather(*(self._ask(asked) for asked in list(self._asked.values()) if self._is_due(asked)))

    def _is_due(self, asked: Asked) -> bool:
        return not asked.is_told_by_use or asked.name not in self._answered or asked.name in self._health.causes()

    async def _ask(self, asked: Asked) -> None:
        try:
            await asyncio.wait_for(asked.ask(), ANSWER_SECONDS)
        except K2Error as exc:
            self._health.red(asked.name, str(exc))
        except TimeoutError:
            self._health.red(asked.name, f"{asked.where} does not answer.")
        else:
            self._answered.add(asked.name)
            self._health.green(asked.name)


class Teller:
    """Says what is wrong in one line, at most once a call, and once that all is well again."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._told: tuple[str, ...] = ()

    def tell(self) -> None:
        causes = self._health.causes()
        if causes:
            sentences = dict.fromkeys(" ".join(cause.split()) for cause in causes.values())
            log.warning("worker.waits", causes=" | ".join(sentences))
        elif self._told:
            log.info("worker.well", after=", ".join(self._told))
        self._told = tuple(causes)
