"""CPU time by stage, measured on the thread that does the work."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from k2stream import metrics


class Stages:
    """Seconds of CPU a stage took on its own thread; work that Arrow's pool does for it is not in it."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.thread_time()
        try:
            yield
        finally:
            seconds = time.thread_time() - started
            self._seconds[name] += seconds
            metrics.STAGE_CPU.labels(name).inc(seconds)

    def as_json(self) -> dict[str, float]:
        return {name: round(seconds, 4) for name, seconds in self._seconds.items()}
