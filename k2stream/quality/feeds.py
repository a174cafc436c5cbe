"""Which feeds report into which topic, as their rows say in vendor_data: where several do, each second report of a trade is to be expected.

Pure, vectorised. That memory is a worker's own, begins anew with each life and is bounded: a feed that was renamed or went is forgotten.
Of a topic that one feed fills only some rows of each window are looked at: feeds that report the same trades stand beside each other everywhere.
"""

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2stream.rows import BACKFILL, FEED_KEY

SAMPLE_ROWS = 4_096
"""Of a topic in a window."""
UNNAMED = ""
LOOKS = 1_000
"""A feed that so many looks at its topic did not meet is forgotten: what comes twice then is odd again. One that comes back is met before its rows count."""
NAMES, NAME_CHARACTERS = 16, 64
"""Of a topic, whatever its records say; two feeds are enough to expect second reports."""


class Reporters:
    """Feeds by topic, for one user at a time; a feed without a name is one, back-fill is none."""

    def __init__(self) -> None:
        self._feeds: dict[str, dict[str, int]] = {}
        """By topic each name, with the look that met it last."""
        self._looks: Counter[str] = Counter()

    def note(self, rows: pa.Table) -> None:
        """Look at rows in the order of their topics, new ones or not."""
        for topic, part in _by_topic(rows):
            self._looks[topic] += 1
            look = self._looks[topic]
            met = self._feeds.get(topic, {}) | dict.fromkeys(_names(part["vendor_data"]), look)
            newest = sorted(met.items(), key=lambda each: each[1])[-NAMES:]
            self._feeds[topic] = {name: last for name, last in newest if look - last < LOOKS}

    def shared(self) -> list[str]:
        """Topics into which several feeds report."""
        return [topic for topic, feeds in self._feeds.items() if len(feeds) > 1]

    def keep(self, topics: Collection[str]) -> None:
        """Forget all other topics."""
        self._feeds = {topic: feeds for topic, feeds in self._feeds.items() if topic in topics}
        self._looks = Counter({topic: looks for topic, looks in self._looks.items() if topic in topics})


def _by_topic(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The first rows of each topic."""
    counts = pc.value_counts(rows["topic"])
    numbers = counts.field("counts").to_numpy()
    starts = np.cumsum(numbers) - numbers
    for topic, start, count in zip(counts.field("values").to_pylist(), starts.tolist(), numbers.tolist(), strict=True):
        yield topic, rows.slice(start, min(count, SAMPLE_ROWS))


def _names(vendor_data: pa.ChunkedArray) -> set[str]:
    """`pc.map_lookup` says the same at ten times the cost."""
    names: set[str] = set()
    for maps in vendor_data.chunks:
        if not len(maps):
            continue
        first, end = maps.offsets[0].as_py(), maps.offsets[-1].as_py()
        named = maps.items.slice(first, end - first).filter(pc.equal(maps.keys.slice(first, end - first), FEED_KEY))
        names |= {(name or UNNAMED)[:NAME_CHARACTERS] for name in named.unique().to_pylist()}
        if len(named) < len(maps):
            names.add(UNNAMED)
    return names - {BACKFILL}
