"""A recording: rows of one topic in the order of publication, with the sessions they belong to, and ids for its messages."""

import gzip
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from k2stream.topics import TopicName

SAMPLE = ("is_sample_data", "true")
"""Entry of vendor_data in every row of a recording."""

OPENERS = {".gz": gzip.decompress, ".xz": lzma.decompress}


@dataclass(frozen=True, slots=True)
class Session:
    """Consecutive rows of one symbol whose numbers belong together."""

    symbol: str
    name: str
    """Sorts as time does: the local date, 2014-03-10."""
    first_row: int
    rows: int
    time_us: int
    """Event time of its first row, microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Rows of one contract, one asset class, one exchange."""

    asset_class: str
    data_type: str
    exchange: str
    """Lower case, as in the topic's name."""
    rows: pa.Table
    """Columns of the contract (k2stream.rows.body_schema), any of its strings dictionary-encoded."""
    sessions: tuple[Session, ...] = ()
    """In order of `first_row`. In a recording of several symbols `rows` is the symbol's count in its session, not a range."""

    @property
    def topic(self) -> str:
        """Where it is published."""
        return str(TopicName(self.asset_class, self.data_type, self.exchange))

    def head(self, rows: int) -> "Recording":
        """The first `rows` rows and the sessions that begin in them; numbers and ids stay as they are."""
        return replace(self, rows=self.rows.slice(0, rows), sessions=tuple(s for s in self.sessions if s.first_row < rows))


class MessageIds:
    """UUID-shaped ids, cheap in bulk: 20 digits of a random version 4 UUID for the feed, 12 that count."""

    def __init__(self, feed: UUID) -> None:
        self._prefix = str(feed)[:-12]
        self._next = 0

    def one(self) -> str:
        """The next id."""
        self._next += 1
        return f"{self._prefix}{self._next - 1:012d}"

    def take(self, count: int) -> pa.Array:
        """The next `count` ids; two feeds never give the same."""
        numbers = pa.array(range(self._next, self._next + count), pa.int64())
        self._next += count
        return pc.binary_join_element_wise(self._prefix, pc.utf8_lpad(numbers.cast(pa.string()), 12, "0"), "")


def shipped(name: str) -> bytes:
    """Content of `k2stream/data/{name}`, unpacked."""
    raw = files("k2stream").joinpath("data", *name.split("/")).read_bytes()
    opener = next((o for suffix, o in OPENERS.items() if name.endswith(suffix)), None)
    return raw if opener is None else opener(raw)


def constant(word: str, count: int) -> pa.DictionaryArray:
    """A column that says the same in every row."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([word]))


def times(value_us: int, count: int) -> pa.Array:
    """A column of one time, microseconds since the epoch."""
    return pa.repeat(pa.scalar(value_us, pa.timestamp("us", "UTC")), count)


def maps(distinct: Sequence[Mapping[str, str]], indices: pa.Array) -> pa.DictionaryArray:
    """A map column of few distinct values."""
    words = pa.array([list(d.items()) for d in distinct], pa.map_(pa.string(), pa.field("value", pa.string(), nullable=False)))
    return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), words)


def empty_lists(count: int) -> pa.Array:
    """A column of empty string lists."""
    kind = pa.list_(pa.field("element", pa.string(), nullable=False))
    return pa.ListArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count + 1), pa.array([], pa.string()), type=kind)
