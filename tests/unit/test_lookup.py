"""The live table follows the lake's, and rows of symbols that it lacks are counted once it is sure."""

import json
import time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from k2stream.errors import LakeError
from k2stream.instruments import lookup
from k2stream.instruments.lookup import OTHERS, Follower, Instrument, Source, UnknownSymbols, by_symbol, instruments_of, key_of
from k2stream.instruments.merge import KEPT, merged
from k2stream.instruments.plain import plain_values
from k2stream.table_file import TableFile
from tests.unit.test_merge import TOPIC, changes

FEE = pa.decimal128(12, 3)


def rows(*said: dict[str, Any]) -> pa.Table:
    return merged(KEPT.empty_table(), changes(said))


class Files:
    """Data files of a table by path, each read once."""

    def __init__(self, **files: pa.Table) -> None:
        self.files, self.commits, self.read_paths = files, 1, list[str]()
        self.source = Source(lambda: {TOPIC}, lambda: self.commits, self._listed, self._read, self._columns)

    def _listed(self) -> list[TableFile]:
        return [TableFile(path, table.num_rows, 0, {}, {}) for path, table in self.files.items()]

    def _columns(self) -> list[str]:
        return max((table.column_names for table in self.files.values()), key=len)

    def _read(self, file: TableFile) -> pa.Table:
        self.read_paths.append(file.path)
        return self.files[file.path]


async def test_what_differs_is_written_and_what_is_gone_removed() -> None:
    """Entries of other topics are another worker's and stay."""
    live: dict[str, Instrument] = {"NSX/X": {"topic": "market.equities.reference_data.nsx"}, "ASX/OLD": {"topic": TOPIC}}
    files = Files(a=rows({}), b=rows({"company_id": "7458", "symbol": "RIO"}))
    follower = Follower(live)
    await follower.look(files.source)
    assert set(live) == {"NSX/X", "ASX/BHP", "ASX/RIO"}
    files.files, files.commits = {"a": files.files["a"], "c": rows({"company_id": "7458", "symbol": "RIO", "company_name": "new"})}, 2
    await follower.look(files.source)
    assert live["ASX/RIO"]["company_name"] == "new"
    assert files.read_paths == ["a", "b", "c"], "a file never changes"


async def test_a_column_that_came_later_is_null_where_a_file_was_read_before() -> None:
    """As for whoever reads both files anew: nothing is written twice."""
    live: dict[str, Instrument] = {}
    files = Files(a=rows({}), b=rows({"company_id": "7458", "symbol": "RIO"}))
    follower = Follower(live)
    await follower.look(files.source)
    for name, fee in (("a", None), ("b", Decimal("0.125"))):
        files.files[name] = files.files[name].append_column(pa.field("fee", FEE), pa.array([fee], FEE))
    files.commits = 2
    await follower.look(files.source)
    assert (live["ASX/RIO"]["fee"], live["ASX/BHP"]["fee"]) == ("0.125", None)
    assert files.read_paths == ["a", "b", "a", "b"]


async def test_without_a_commit_nothing_is_asked_until_it_is_time_to_heal(monkeypatch: Any) -> None:
    """An entry that a zombie wrote over comes back by itself."""
    live: dict[str, Instrument] = {}
    files, follower = Files(a=rows({})), Follower(live)
    await follower.look(files.source)
    live["ASX/BHP"] = {"topic": TOPIC, "company_name": "of a zombie"}
    await follower.look(files.source)
    assert live["ASX/BHP"]["company_name"] == "of a zombie"
    monkeypatch.setattr(lookup, "HEAL_SECONDS", 0.0)
    await follower.look(files.source)
    assert live["ASX/BHP"]["company_name"] == "BHP BILLITON LTD"


async def test_a_lake_that_is_away_is_asked_again() -> None:
    """No error of a look-up reaches a worker."""
    live: dict[str, Instrument] = {}
    files, follower = Files(a=rows({})), Follower(live)

    def away() -> list[TableFile]:
        raise LakeError("the catalog is away")

    await follower.look(Source(lambda: {TOPIC}, lambda: 1, away, files.source.read, files.source.columns))
    assert not live
    await follower.look(files.source)
    assert set(live) == {"ASX/BHP"}


EVERY_TYPE = {
    pa.timestamp("us", tz="UTC"): [
        (0, "1970-01-01T00:00:00+00:00"),
        (2**62, "148108-07-06T14:00:27.387904+00:00"),
        (-(2**62), "-144169-06-28T09:59:32.612096+00:00"),
    ],
    pa.timestamp("us"): [(0, "1970-01-01T00:00:00")],
    pa.date32(): [(0, "1970-01-01"), (2**31 - 1, "5881580-07-11")],
    pa.time64("us"): [(1, "00:00:00.000001")],
    pa.decimal128(30, 10): [(Decimal("0.5"), "0.5000000000")],
    pa.float64(): [(0.5, 0.5), (float("nan"), "nan"), (float("-inf"), "-inf")],
    pa.int64(): [(2**63 - 1, 2**63 - 1)],
    pa.bool_(): [(True, True)],
    pa.binary(): [(b"\0x", "0078")],
    pa.binary(2): [(b"ab", "6162")],
    pa.uuid(): [(UUID(int=1).bytes, "00000000-0000-0000-0000-000000000001")],
    pa.list_(pa.float32()): [([0.5, float("inf")], [0.5, "inf"]), ([], [])],
    pa.map_(pa.string(), pa.binary()): [([("a", b"x")], {"a": "78"}), ([], {})],
}


@pytest.mark.parametrize(("kind", "values"), EVERY_TYPE.items(), ids=str)
def test_a_value_of_any_column_is_the_same_behind_a_changelog(kind: pa.DataType, values: list[tuple[Any, Any]]) -> None:
    """Else its row would be written again at every look, or end the look-up: far times, numbers that are none, bytes."""
    found = plain_values(pa.chunked_array([pa.array([value for value, _ in values] + [None], kind)]))
    assert found == [plain for _, plain in values] + [None]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


HAND_MADE = [pa.struct([("a", pa.int64())]), pa.list_(pa.timestamp("us")), pa.map_(pa.int64(), pa.string()), pa.list_(pa.list_(pa.string()))]


@pytest.mark.parametrize("kind", HAND_MADE, ids=str)
def test_columns_that_only_a_person_can_add_end_no_look_up(kind: pa.DataType) -> None:
    """They stay in the table; the look-up leaves them out."""
    table = rows({}).append_column(pa.field("mine", kind), pa.nulls(1, kind))
    assert "mine" not in instruments_of(table)[0]


def test_a_symbol_that_two_companies_bore_means_the_listed_one() -> None:
    """A symbol is used again after its company is gone."""
    found = by_symbol(instruments_of(rows({"company_id": "heir"}, {"company_id": "gone"}, {"company_id": "gone", "end": 1})))
    assert found["ASX/BHP"]["company_id"] == "heir"


def test_symbols_with_a_slash_are_keys_too() -> None:
    """Kraken writes XBT/USD."""
    assert key_of("kraken", "XBT/USD") == "KRAKEN/XBT/USD"


def ticks(*symbols: str, exchange: str = "ASX") -> pa.Table:
    return pa.table({"exchange": pa.array([exchange] * len(symbols)).dictionary_encode(), "symbol": pa.array(symbols).dictionary_encode()})


def test_a_symbol_is_unknown_only_after_a_while() -> None:
    """Its reference data may be on its way: what came meanwhile is counted if it does not come, and not if it does."""
    live: dict[str, Instrument] = {"ASX/BHP": {}}
    unknown = UnknownSymbols(lambda: live, lambda: {"ASX"})
    unknown.committed("trades", ticks("BHP", "RIO", "RIO", "DVN"))
    unknown.tell(time.monotonic())
    assert unknown.as_json() == {}
    live["ASX/DVN"] = {}
    unknown.tell(time.monotonic() + 60)
    assert unknown.as_json() == {"trades ASX/RIO": 2}


def test_exchanges_without_reference_data_are_not_asked_about() -> None:
    """Nobody said that their symbols would be known."""
    unknown = UnknownSymbols(dict, lambda: {"ASX"})
    unknown.committed("quotes", ticks("BTCUSDT", exchange="BINANCE"))
    unknown.tell(time.monotonic() + 60)
    assert unknown.as_json() == {}


def test_a_feed_of_garbage_fills_no_memory() -> None:
    """Beyond a thousand symbols the rest share one count."""
    unknown = UnknownSymbols(dict, lambda: {"ASX"})
    unknown.committed("trades", ticks(*(f"S{n}" for n in range(1_500))))
    unknown.tell(time.monotonic() + 60)
    assert (len(unknown.counts), unknown.as_json()[f"trades ASX/{OTHERS}"]) == (1_001, 500)

