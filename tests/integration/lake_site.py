"""A lake in a temporary K2_HOME, its catalog and its files wherever the settings say: real ones, windows by the handful."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from k2stream.clock import Clock, Deadline
from k2stream.deadletter.envelope import letter_of
from k2stream.deadletter.rows import letter_rows
from k2stream.gaps import EVENTS
from k2stream.lake.catalog import open_catalog
from k2stream.lake.file_io import local_path
from k2stream.lake.offsets import Counts
from k2stream.lake.s3 import s3_properties
from k2stream.lake.table import RowsLake, no_step
from k2stream.lake.turn import Turn, no_turn
from k2stream.lake.window import Window
from k2stream.object_store import ObjectStore, is_rest
from k2stream.records import TopicPartition
from k2stream.settings import Settings
from k2stream.testing import a_reject, gap_events, trade_rows
from tables.lake.dead_letters import DEAD_LETTERS
from tables.lake.gaps import GAPS
from tables.lake.trades import TRADES

TP = TopicPartition("market.equities.trades.asx", 0)
OTHER_TP = TopicPartition("market.equities.trades.asx", 1)


def soon(seconds: float = 10) -> Deadline:
    """A budget that no test needs."""
    return Deadline.after(seconds)


def window(
    number: int,
    first: int,
    end: int,
    *,
    tp: TopicPartition = TP,
    events: Sequence[str] = (),
    letters: Sequence[int] = (),
    tracker: bytes | None = None,
    **values: object,
) -> Window:
    """One row an offset of [first, end), with gap events of these ids; offsets of `letters` are dead letters instead."""
    offsets = [offset for offset in range(first, end) if offset not in letters]
    rows = [{"topic": tp.topic, "partition": tp.partition, "offset": o, "trade_id": f"ASX-{tp.partition}-{o}", **values} for o in offsets]
    origins = [{"event_id": id, "topic": tp.topic, "partition": tp.partition, "offset": first} for id in events]
    return Window(
        number=number,
        rows=trade_rows(rows),
        events=gap_events(origins) if origins else EVENTS.empty_table(),
        deltas={tp: Counts(rows=end - first - len(letters), dead_letters=len(letters))},
        spans={tp: (first, end)},
        tracker=None if tracker is None else {tp: tracker},
        letters=letter_rows(letter_of(a_reject(*tp, offset)) for offset in letters),
        watermark_us=1_394_400_000_000_000 + end,
    )


class LakeSite:
    """One K2_HOME and whoever writes to it."""

    opened: ClassVar[list[Catalog]] = []
    """Catalogs of all sites; conftest.py closes them after each test."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, fsync=False, **settings)

    def worker(
        self,
        fault: Callable[[Catalog], object] | None = None,
        *,
        on_step: Callable[[str], None] = no_step,
        clock: Clock | None = None,
        turn: Turn = no_turn,
    ) -> RowsLake:
        """A worker with its own catalog, behind a fault if one is given."""
        catalog: Any = open_catalog(self.settings)
        self.opened.append(catalog)
        lake = RowsLake.open(self.settings, TRADES, GAPS, DEAD_LETTERS, catalog=fault(catalog) if fault else catalog, on_step=on_step, clock=clock)
        lake.take_turns(turn)
        return lake

    def started(self, fault: Callable[[Catalog], object] | None = None, **arguments: Any) -> RowsLake:
        """The same once TP starts at 0."""
        self.worker().register({TP: 0}, soon())
        return self.worker(fault, **arguments)

    def stranger(self, name: str = "trades") -> Table:
        """The table as plain PyIceberg loads it, with nothing of k2stream but its address."""
        uri, store = self.settings.catalog_uri, s3_properties(ObjectStore.of(self.settings))
        if is_rest(uri):
            catalog: Catalog = RestCatalog("k2", uri=uri, **store)
        else:
            catalog = SqlCatalog("k2", uri=uri or f"sqlite:///{self.settings.home_path('catalog.db')}", **store)
        self.opened.append(catalog)
        return catalog.load_table(f"{self.settings.namespace}.{name}")

    def rows(self, name: str = "trades") -> pa.Table:
        """All rows as plain PyIceberg scans them."""
        return self.stranger(name).scan().to_arrow()

    def offsets(self) -> list[int]:
        """Offsets of all rows, sorted; one that is there twice shows twice."""
        return sorted(self.rows()["offset"].to_pylist())

    def event_ids(self) -> list[str]:
        """Ids in the gaps table, sorted; one that is there twice shows twice."""
        return sorted(self.rows("gaps")["event_id"].to_pylist())

    def snapshots(self, kind: str, name: str = "trades") -> int:
        """How many kept snapshots of the table are of this kind."""
        return sum(s.summary["k2.kind"] == kind for s in self.stranger(name).metadata.snapshots if "k2.kind" in s.summary.additional_properties)

    def files(self, folder: str = "trades") -> set[PurePosixPath]:
        """Files below a table's folder."""
        location = self.stranger(folder).location()
        path = local_path(location)
        if path is not None:
            return {PurePosixPath(p) for p in path.rglob("*") if p.is_file()}
        store, parts = PyArrowFileIO(s3_properties(ObjectStore.of(self.settings))), urlsplit(location)
        found = store.fs_by_scheme(parts.scheme, parts.netloc).get_file_info(FileSelector(parts.netloc + parts.path, recursive=True))
        return {PurePosixPath(f.path) for f in found if f.type == FileType.File}

    def location(self, path: PurePosixPath) -> str:
        """Of one of these files, as the catalog's file store wants it: with the scheme of an object store."""
        scheme = urlsplit(self.stranger().location()).scheme
        return f"{scheme}://{path}" if scheme == "s3" else str(path)

    @cached_property
    def io(self) -> FileIO:
        """Of one catalog for the whole test: a reader in a loop would take a connection each time."""
        return self.stranger().io

    def exists(self, location: str) -> bool:
        """True if there is a file."""
        return self.io.new_input(location).exists()

    def remove(self, location: str) -> None:
        """Somebody's hand."""
        self.io.delete(location)

    def write(self, name: str, rows: pa.Table) -> str:
        """A Parquet file beside the data of the trades table; its location."""
        table = self.stranger()
        with table.io.new_output(f"{table.location()}/{name}").create(overwrite=True) as stream:
            pq.write_table(rows, stream)
        return f"{table.location()}/{name}"

    def parquet(self, location: str) -> tuple[pq.FileMetaData, pa.Table]:
        """Footer and rows of a file."""
        with closing(self.io.new_input(location).open()) as stream:
            file = pq.ParquetFile(stream)
            return file.metadata, file.read()
