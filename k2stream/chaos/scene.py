"""What a fault is given to break, and how it waits while the crew is looked after."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from k2stream.chaos.crew import Crew, Member
from k2stream.chaos.ground import Ground
from k2stream.chaos.progress import Progress
from k2stream.errors import K2Error

STEP_SECONDS = 0.1
ASK_SECONDS = 0.5
"""Between two questions to all workers, which costs them something."""
READY_SECONDS = 240.0


class ChaosError(K2Error):
    """A chaos run cannot go on; says what was waited for."""


@dataclass(slots=True)
class Scene:
    """One run: where it happens and who takes part. For the thread that made the crew."""

    ground: Ground
    crew: Crew
    progress: Progress
    random: Random

    def wait(self, seconds: float) -> None:
        """Time goes by; who ended is replaced."""
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], seconds: float, *, every: float = STEP_SECONDS) -> bool:
        """True as soon as it holds, False if it did not in time."""
        deadline = time.monotonic() + seconds
        while not (holds := condition()) and time.monotonic() < deadline:
            self.crew.tend()
            time.sleep(every)
        return holds

    def victims(self, count: int) -> Sequence[Member]:
        """So many workers that own partitions, chosen by the dice; waits until there are enough. Raises ChaosError."""
        enough = min(count, len(self.crew.members))
        ready: list[Member] = []

        def are_enough() -> bool:
            ready[:] = self.crew.ready()
            return len(ready) >= enough

        if not self.until(are_enough, READY_SECONDS, every=ASK_SECONDS):
            raise ChaosError(f"{enough} workers should own partitions within {READY_SECONDS:.0f} s, {len(ready)} do. Their logs: {self.ground.home}.")
        return self.random.sample(ready, enough)
