"""How long a commit waits before it tries again, so that many writers of one table all get their turn."""

import random
import time

from k2stream.clock import Deadline

FIRST_SECONDS = 0.02
LONGEST_SECONDS = 2.0
"""Long enough for a catalog that is being restarted."""
CONFLICT_SECONDS = 0.05
"""After a lost race. It does not grow: who has lost often must not wait longer than who has just come."""


class Pauses:
    """The pauses of one commit. They are drawn: writers that collided once shall not do so again."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._trouble_seconds = FIRST_SECONDS
        self._conflicts = 0

    def after_conflict(self) -> None:
        """Another writer was faster: at once the first time, for the new head is there already."""
        if self._conflicts:
            self._sleep(CONFLICT_SECONDS * random.random())  # noqa: S311 # no secret
        self._conflicts += 1

    def after_trouble(self) -> None:
        """The catalog or the store did not do what it was asked."""
        self._sleep(self._trouble_seconds * (0.5 + random.random() / 2))  # noqa: S311 # no secret
        self._trouble_seconds = min(self._trouble_seconds * 2, LONGEST_SECONDS)

    def _sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self._deadline.remaining_seconds()))
