"""Has the outbox of a snapshot been taken? As the tables say that take it, whoever asks."""

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2stream.lake.catalog import load_table
from k2stream.lake.head import head_or_start, summary_of
from k2stream.lake.outbox import Applied, applied_of
from k2stream.lake.summary import EVENTS_FILE, FLAGS_FILE, LETTERS_FILE, OUTBOX_FILES
from k2stream.settings import Settings

TAKERS = {EVENTS_FILE: "gaps", LETTERS_FILE: "dead_letters", FLAGS_FILE: "quality"}
"""Entry of a summary -> the table that takes the file it names."""


class Taken:
    """Asks each taking table once; what is taken meanwhile is found the next time."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog, self._settings = catalog, settings
        self._applied: dict[tuple[str, str], Applied] = {}

    def __call__(self, source: Table, snapshot: Snapshot) -> bool:
        """True if nothing of `snapshot` waits. Raises LakeError if a taking table cannot be read."""
        named = [key for key in OUTBOX_FILES if key in summary_of(snapshot)]
        return all(key in TAKERS and self._of(TAKERS[key], source.name()[-1]).has_taken(source, snapshot) for key in named)

    def _of(self, taker: str, source: str) -> Applied:
        if (taker, source) not in self._applied:
            self._applied[taker, source] = applied_of(head_or_start(load_table(self._catalog, self._settings, taker)), source)
        return self._applied[taker, source]
