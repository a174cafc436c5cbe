"""A worker that cannot start or go on says why in one sentence and ends; no traceback helps whoever must free a folder or mend a disk."""

import atexit
from collections.abc import Awaitable
from typing import Any, TypeVar

from k2stream.errors import K2Error
from k2stream.logs import say_last

T = TypeVar("T")


async def or_exit(service: Any, opening: Awaitable[T]) -> T:
    """What `opening` gives; if it cannot be had, SystemExit(1) after one line in the log."""
    try:
        return await opening
    except K2Error as exc:
        service.log.critical("%s", exc)
        atexit.register(say_last, str(exc))  # below all that Faust logs while it stops
        raise SystemExit(1) from None


class EndsOnce:
    """What a driver's thread calls when nothing helps any more; put it in front of a driver's Consumer."""

    app: Any
    loop: Any
    log: Any
    _is_ending = False

    def stop_app(self, exc: Exception) -> None:
        """End the worker for good, once, from any thread: what is stored is damaged."""
        if self._is_ending:
            return
        self._is_ending = True
        stop_for = getattr(self.app, "stop_for", None)
        if stop_for is not None:
            stop_for(str(exc))
        else:
            self.log.critical("%s", exc)
            self.loop.call_soon_threadsafe(self.app._crash, SystemExit(1))  # noqa: SLF001 # Faust's own way to end a worker from outside
