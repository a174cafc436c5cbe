"""The start of a worker as something that is tried until it succeeds: services may come after it.

Faust starts what a worker consists of one after the other. `Boot` stands behind the web server and before the consumer:
pages answer from the first second on, and nothing is read or assigned before every step has passed.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from faust.app.base import BootStrategy
from faust.types import ServiceT
from mode import Service

from k2stream.errors import K2Error

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0)
MAX_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that has to succeed before a worker reads."""

    name: str
    """Of the cause that `/healthz` shows meanwhile."""
    waits_for: str
    """The service and its address, without a password."""
    run: Callable[[], Awaitable[None]]
    """Raises a retriable K2Error where asking again may help, another K2Error where a person has to mend something."""


class Boot(Service):
    """Runs the app's steps side by side, each until it succeeds; it is started when all of them have."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        """`app` is the K2App: its steps, its health, and who is told of the end."""
        self.app = app
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Returns once every step has passed, or the worker is told to stop."""
        await self.wait(self._pass_all())
        if self.app.fatal is not None:
            await self.wait()  # who stands behind us in the order is not started while the worker ends
        elif not self.should_stop:
            await self.app.on_booted()

    async def _pass_all(self) -> None:
        await asyncio.gather(*(self._pass(step) for step in self.app.boot_steps()))

    async def _pass(self, step: Step) -> None:
        waits = f"The worker waits for {step.waits_for}"
        self.app.health.red(step.name, f"{waits}.")
        for pause_seconds in itertools.chain(PAUSES_SECONDS, itertools.repeat(MAX_PAUSE_SECONDS)):
            try:
                await step.run()
            except K2Error as exc:
                self.app.health.red(step.name, f"{waits}: {exc}")
                if not exc.is_retriable:
                    self.app.stop_for(str(exc))
                    return
            else:
                self.app.health.green(step.name)
                return
            await asyncio.sleep(pause_seconds)


class PatientStart(BootStrategy):
    """Faust's order of services, with the steps between the pages and the consumer."""

    def kafka_consumer(self) -> Iterable[ServiceT]:
        return [self._boot(), *super().kafka_consumer()]

    def producer_only(self) -> Iterable[ServiceT]:
        """An application that reads nothing boots too, behind its pages."""
        return [*super().producer_only(), self._boot()]

    def _boot(self) -> Boot:
        app: Any = self.app
        return Boot(app, loop=app.loop, beacon=app.beacon)
