"""Fakes and builders for tests: small, real, and named for their fault where they have one."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from k2stream.errors import TransportError
from k2stream.gaps import EVENTS
from k2stream.lake.offsets import Vector
from k2stream.rows import TRADES
from k2stream.table_file import TableFile
from k2stream.transport.sink import LogSink
from k2stream.verdict import Reason, Reject

A_TRADE: Mapping[str, object] = {
    "message_id": "m",
    "trade_id": "ASX-1",
    "symbol": "BHP",
    "exchange": "ASX",
    "asset_class": "equities",
    "timestamp": 1_394_400_000_000_000,
    "price": Decimal("35.12"),
    "quantity": Decimal(100),
    "currency": "AUD",
    "side": "UNKNOWN",
    "trade_conditions": [],
    "source_sequence": 1,
    "ingestion_timestamp": 1_394_400_000_000_000,
    "platform_sequence": None,
    "vendor_data": None,
    "is_sample_data": True,
    "topic": "market.equities.trades.asx",
    "partition": 0,
    "offset": 0,
}


A_GAP_EVENT: Mapping[str, object] = {
    "event_id": "e",
    "exchange": "ASX",
    "symbol": "BHP",
    "data_type": "trades",
    "kind": "opened",
    "severity": "small",
    "first_sequence": 2,
    "last_sequence": 3,
    "missing": 2,
    "cause": "upstream",
    "timestamp": 1_394_400_000_000_000,
    "previous_timestamp": 1_394_400_000_000_000,
    "topic": "market.equities.trades.asx",
    "partition": 0,
    "offset": 1,
    "previous_offset": 0,
    "gap_id": None,
    "waived_by": None,
    "waived_because": None,
}


def gap_events(events: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows of k2stream.gaps.EVENTS; what a mapping leaves out is as in A_GAP_EVENT."""
    whole = [{**A_GAP_EVENT, **event} for event in events]
    return pa.table([pa.array([event[field.name] for event in whole], field.type) for field in EVENTS], schema=EVENTS)


def trade_rows(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows of k2stream.rows.TRADES; what a mapping leaves out is as in A_TRADE."""
    whole = [{**A_TRADE, **row} for row in rows]
    return pa.table([pa.array([row[field.name] for row in whole], field.type) for field in TRADES], schema=TRADES)


class ParquetTable:
    """A table of plain Parquet files and a vector kept by hand: what the lake is to a query, without a catalog.

    The snapshot's id is the count of files, so that an older id names the files of then.
    """

    BOUNDED = ("exchange", "symbol", "timestamp", "topic", "partition", "offset")

    def __init__(self, folder: Path, vector: Vector | None = None) -> None:
        self._folder = folder
        self._files: list[TableFile] = []
        self.vector: Vector = vector or {}

    def add(self, rows: pa.Table) -> TableFile:
        """Write one file, sorted as the lake sorts, with the bounds that its manifest would have."""
        path = self._folder / f"{len(self._files):05}.parquet"
        pq.write_table(rows.sort_by([("symbol", "ascending"), ("timestamp", "ascending")]), path, row_group_size=1 << 16)
        bounds = {name: pc.min_max(rows[name]).as_py() for name in self.BOUNDED}
        lower, upper = ({name: bound[end] for name, bound in bounds.items()} for end in ("min", "max"))
        self._files.append(TableFile(str(path), rows.num_rows, path.stat().st_size, lower, upper))
        return self._files[-1]

    def forget(self, file: TableFile) -> None:
        """Take a file out of the table, as somebody's delete would."""
        self._files.remove(file)

    @property
    def snapshot_id(self) -> int:
        return len(self._files)

    def head(self) -> "ParquetTable":
        """Itself: it has one state, the newest."""
        return self

    def files(self, snapshot_id: int) -> list[TableFile]:
        """The oldest `snapshot_id` files."""
        return self._files[:snapshot_id]


class CatalogWithFault:
    """A real catalog behind a fault: what a subclass does not play goes through."""

    def __init__(self, catalog: Catalog, *, times: int = 1) -> None:
        """The first `times` commits meet the fault."""
        self._catalog, self.left = catalog, times
        """So many commits more meet the fault."""
        self.commits = 0
        """How often a commit was asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def commit_table(self, *arguments: Any) -> Any:
        self.commits += 1
        if self.left <= 0:
            return self._catalog.commit_table(*arguments)
        self.left -= 1
        return self._faulty_commit(*arguments)

    def _faulty_commit(self, *arguments: Any) -> Any:
        raise NotImplementedError


class SinkThatDeliversLate:
    """A real sink whose log batches are under way: the sender dies without an answer, and they arrive when the test says."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self.under_way: list[tuple[str, int, bytes]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    async def send_batch(self, topic: str, partition: int, raw: bytes) -> int:
        self.under_way.append((topic, partition, raw))
        raise TransportError("The sender died.")


def answer_of(status: int | None) -> Exception:
    """What PyIceberg raises for a catalog's answer to a commit; None: no answer came."""
    if status == 409:
        return CommitFailedException("Requirement failed: branch main has changed")
    return ConnectionError("Remote end closed connection without response") if status is None else CommitStateUnknownException("500")


class CatalogThatCommitsThenFails(CatalogWithFault):
    """The commit lands, and the answer says that it did not, or nothing."""

    def __init__(self, catalog: Catalog, *, status: int | None, times: int = 1) -> None:
        super().__init__(catalog, times=times)
        self._answer = answer_of(status)

    def _faulty_commit(self, *arguments: Any) -> Any:
        self._catalog.commit_table(*arguments)
        raise self._answer


class CatalogThatFailsBeforeCommitting(CatalogWithFault):
    """The commit does not land, and the answer leaves that open."""

    def __init__(self, catalog: Catalog, *, status: int | None, times: int = 1) -> None:
        super().__init__(catalog, times=times)
        self._answer = answer_of(status)

    def _faulty_commit(self, *arguments: Any) -> Any:
        raise self._answer


class CatalogThatLosesTheRace(CatalogWithFault):
    """Another writer commits just before ours does; what the catalog then says is its own."""

    def __init__(self, catalog: Catalog, *, other: Callable[[], object], times: int = 1) -> None:
        super().__init__(catalog, times=times)
        self._other = other

    def _faulty_commit(self, *arguments: Any) -> Any:
        self._other()
        return self._catalog.commit_table(*arguments)


class CatalogThatGoesAway(CatalogWithFault):
    """The commit reaches it, then it answers nothing at all, looks included, until `revive`."""

    def __init__(self, catalog: Catalog, *, is_landed: bool) -> None:
        super().__init__(catalog)
        self._is_landed, self._is_away = is_landed, False

    def _faulty_commit(self, *arguments: Any) -> Any:
        if self._is_landed:
            self._catalog.commit_table(*arguments)
        self._is_away = True
        raise answer_of(None)

    def load_table(self, *arguments: Any) -> Any:
        if self._is_away:
            raise answer_of(None)
        return self._catalog.load_table(*arguments)

    def revive(self) -> None:
        """Answer again."""
        self._is_away = False


def a_reject(topic: str, partition: int, offset: int, key: bytes | None = None) -> Reject:
    """A record that could not be read, of any cause."""
    return Reject(topic, partition, offset, 1_394_400_000_000, key, b"\x01", (), Reason.BAD_MAGIC, "expected byte 0, found 1", None)
