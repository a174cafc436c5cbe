"""One look at the tables after another, beside whatever is going on."""

import threading
import time

from k2stream.chaos.check import Verdict, check
from k2stream.chaos.reference import Reference
from k2stream.errors import K2Error
from k2stream.settings import Settings

AGAIN_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
"""A service may be away for a minute; longer, and the run has nothing to say."""


class Judge:
    """A thread that checks when asked to; a look that a service prevents is taken again."""

    def __init__(self, settings: Settings, reference: Reference) -> None:
        self._settings, self._reference = settings, reference
        self._asked, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-judge", daemon=True)
        self.verdicts: list[Verdict] = []
        """Oldest first; grows while the thread runs."""
        self.failed: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Look at a snapshot that is no older than now; the one under way is not enough."""
        self._asked.set()

    def stop(self) -> None:
        """Returns once the last look that was asked for is done."""
        self._stopping.set()
        self._asked.set()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def look(self, *, is_final: bool) -> Verdict:
        """Check now, in the caller's thread; the own thread must have been stopped."""
        self.verdicts.append(check(self._settings, self._reference, is_final=is_final))
        return self.verdicts[-1]

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._asked.wait()
                self._asked.clear()
                self._check()
        except Exception as exc:  # said by `stop`, in the thread that can act on it
            self.failed = exc

    def _check(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.verdicts.append(check(self._settings, self._reference, is_final=False))
                return
            except K2Error:
                if self._stopping.is_set():
                    return
                if time.monotonic() > until:
                    raise
                time.sleep(AGAIN_SECONDS)
