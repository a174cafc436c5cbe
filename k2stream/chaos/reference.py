"""What the tables must hold, said slowly: from the log, record by record, with nothing of the pipeline in it."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from k2stream.chaos.trades import TradeMaker
from k2stream.errors import K2Error
from k2stream.feed.publisher import MARKER, SESSION, TIME_US
from k2stream.gaps_oracle import Event, GapOracle
from k2stream.lake.offsets import Counts, Vector
from k2stream.records import Record, TopicPartition


@dataclass(slots=True)
class Lane:
    """One partition as the log holds it, up to `next`."""

    oracle: GapOracle
    next: int = 0
    offsets: list[int] = field(default_factory=list)
    """Of the records that must be rows."""
    indexes: list[int] = field(default_factory=list)
    """Of their rows."""
    duplicates: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    markers: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """In the order of their offsets."""

    def counts(self, below: int) -> Counts:
        """The ledger that a table has at `next` = `below`."""
        return Counts(*(bisect_left(offsets, below) for offsets in (self.offsets, self.duplicates, self.letters, self.markers)))


class Reference:
    """The log so far; one user at a time."""

    def __init__(self, maker: TradeMaker, topic: str, *, exchange: str, partitions: int, small_rows: int) -> None:
        self.topic = topic
        self._maker, self._exchange, self._small_rows = maker, exchange, small_rows
        self.lanes = {TopicPartition(topic, p): Lane(GapOracle("trades", small_rows)) for p in range(partitions)}
        self._trades: set[int] = set()

    def positions(self) -> dict[TopicPartition, int]:
        """Where to read the log on from."""
        return {tp: lane.next for tp, lane in self.lanes.items()}

    def take(self, records: Iterable[Record]) -> None:
        """Records that follow those taken before; raises K2Error for one that is not this run's, or out of place."""
        for record in records:
            lane = self.lanes[TopicPartition(record.topic, record.partition)]
            if record.offset != lane.next:
                raise K2Error(f"{record.topic}/{record.partition}: offset {record.offset} stands where {lane.next} was expected. Was the topic re-created?")
            lane.next += 1
            self._take(lane, record)

    def _take(self, lane: Lane, record: Record) -> None:
        place = (record.topic, record.partition, record.offset)
        if record.value is None:
            said = dict(record.headers)
            lane.oracle.marker(*place, (record.key or b"").decode(), said[MARKER].decode(), said[SESSION].decode(), int(said[TIME_US]))
            lane.markers.append(record.offset)
        elif (index := self._maker.index_of(record.value)) is None:
            if record.value not in self._maker.spoiled:
                raise K2Error(f"{place[0]}/{place[1]}: offset {place[2]} holds a record that this run did not publish. Somebody else writes to its topic.")
            lane.oracle.reject(*place, record.key)
            lane.letters.append(record.offset)
        else:
            self._row(lane, index, record)

    def _row(self, lane: Lane, index: int, record: Record) -> None:
        known = self._maker.known[index]
        if known.trade in self._trades:
            lane.duplicates.append(record.offset)
            return
        self._trades.add(known.trade)
        lane.offsets.append(record.offset)
        lane.indexes.append(index)
        row = {"exchange": self._exchange, "symbol": known.symbol, "source_sequence": known.sequence, "timestamp": known.time_us}
        event = lane.oracle.row({**row, "topic": record.topic, "partition": record.partition, "offset": record.offset})
        if event is not None:
            lane.events.append(event)

    def rows(self, vector: Vector) -> pa.Table:
        """The rows that a table must hold at this vector, with their origin; columns of k2stream.rows.TRADES."""
        indexes: list[int] = []
        origins: dict[str, list[int]] = defaultdict(list)
        for tp, lane in self.lanes.items():
            count = bisect_left(lane.offsets, vector[tp].next) if tp in vector else 0
            indexes += lane.indexes[:count]
            origins["partition"] += [tp.partition] * count
            origins["offset"] += lane.offsets[:count]
        rows = self._maker.table().take(pa.array(indexes, pa.int64()))
        rows = rows.append_column("is_sample_data", pa.array([False] * len(indexes), pa.bool_()))
        rows = rows.append_column("topic", pa.array([self.topic] * len(indexes), pa.string()))
        rows = rows.append_column("partition", pa.array(origins["partition"], pa.int32()))
        return rows.append_column("offset", pa.array(origins["offset"], pa.int64()))

    def events(self, vector: Vector) -> list[Event]:
        """The gap events of those rows."""
        return [event for tp, lane in self.lanes.items() if tp in vector for event in lane.events if event["offset"] < vector[tp].next]

    def letters(self, vector: Vector) -> set[tuple[str, int, int]]:
        """Origins of the dead letters that there must be."""
        lanes = ((tp, lane) for tp, lane in self.lanes.items() if tp in vector)
        return {(tp.topic, tp.partition, offset) for tp, lane in lanes for offset in lane.letters if offset < vector[tp].next}
