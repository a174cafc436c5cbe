"""A worker that cannot start says why in one sentence and ends; no traceback helps whoever must free a folder."""

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
