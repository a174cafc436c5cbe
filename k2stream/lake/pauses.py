"""How long a commit waits before it tries again, so that many writers of one table all get their turn."""

import random
import time

from k2stream.clock import Deadline

FIRST_SECONDS = 0.02
LONGEST_SECONDS = 2.0
"""Long enough for a catalog that is being restarted."""
LONGEST_CONFLICT_SECONDS = 0.32
"""After a lost race: some ten commits of others."""


class Pauses:
    """The pauses of one commit. Each is drawn from zero to its length: writers that collided once shall not do so again."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._trouble_seconds = FIRST_SECONDS
        self._conflict_seconds = 0.0

    def after_conflict(self) -> None:
        """Another writer was faster: at once the first time, for the new head is there already."""
        self._sleep(self._conflict_seconds * random.random())  # noqa: S311 # no secret
        self._conflict_seconds = min(max(FIRST_SECONDS, self._conflict_seconds * 2), LONGEST_CONFLICT_SECONDS)

    def after_trouble(self) -> None:
        """The catalog or the store did not do what it was asked."""
        self._sleep(self._trouble_seconds * (0.5 + random.random() / 2))  # noqa: S311 # no secret
        self._trouble_seconds = min(self._trouble_seconds * 2, LONGEST_SECONDS)

    def _sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self._deadline.remaining_seconds()))
