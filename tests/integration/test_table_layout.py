"""What other engines find: plain PyIceberg and plain Parquet, cut by day and venue, sorted, typed, private."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.lake.window import Window
from k2stream.rows import TRADES
from k2stream.testing import trade_rows
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window

DAY_US = 86_400_000_000
FIRST_DAY = 1_394_409_600_000_000  # 2014-03-10


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path / "a#b c", **place)


def many() -> pa.Table:
    """Two venues, two days, symbols and times out of order, texts that need quoting."""
    rows = []
    for offset in range(40):
        venue = ("ASX", "BINANCE")[offset % 2]
        rows.append(
            {
                "offset": offset,
                "exchange": venue,
                "symbol": ("ZZZ", "AAA", "M'M", "ß/ä")[offset * 7 % 4],
                "timestamp": FIRST_DAY + (offset % 3 // 2) * DAY_US + (offset * 7919 % 40) * 1000,
                "price": Decimal(offset) / 8 + Decimal("0.00000001"),
                "trade_conditions": ["XT"] if offset % 5 == 0 else [],
                "vendor_data": {"k": "v"} if offset % 2 else None,
            }
        )
    return trade_rows(rows)


def committed(site: LakeSite, rows: pa.Table) -> list[str]:
    """Commit `rows` as one window; its data files."""
    worker = site.started()
    plain = window(1, 0, rows.num_rows)
    head = worker.commit(worker.write(Window(1, rows, plain.events, plain.deltas, plain.spans)), soon())
    return [f.path for f in worker.files(head.snapshot_id)]


def test_files_are_cut_by_day_and_exchange(site: LakeSite) -> None:
    """Each file holds one day of one venue, and its folder says which."""
    files = committed(site, many())
    folders = sorted("/".join(f.split("/")[-3:-1]) for f in files)
    assert folders == [f"timestamp_day=2014-03-{day}/exchange={venue}" for day in (10, 11) for venue in ("ASX", "BINANCE")]
    for file in files:
        _, rows = site.parquet(file)
        assert len({(t.date(), e) for t, e in zip(rows["timestamp"].to_pylist(), rows["exchange"].to_pylist(), strict=True)}) == 1


def test_files_are_sorted_compressed_and_typed(site: LakeSite) -> None:
    """By symbol and time, zstd, decimals as decimals, field ids for other engines, no dictionary types of ours."""
    for path in committed(site, many()):
        footer, rows = site.parquet(path)
        order = list(zip(*(rows[c].to_pylist() for c in ("symbol", "timestamp")), strict=True))
        assert order == sorted(order)
        group = footer.row_group(0)
        assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
        assert rows.schema.field("price").type == pa.decimal128(18, 8)
        assert rows.schema.field("symbol").type == pa.string()
        assert all(b"PARQUET:field_id" in f.metadata for f in rows.schema)


def test_maps_cut_from_longer_arrays_are_written_as_they_are(site: LakeSite) -> None:
    """Slices of slices, no map, an empty one, keys in other orders and of other chunks: every row keeps its own entries."""
    maps = [None, {}, {"a": "1", "b": "2"}, {"b": "3", "a": "4"}, {"c": "5"}, {"a": "6", "b": None, "d": "7"}]
    rows = trade_rows([{"offset": n, "symbol": f"S{n * 7 % 30:02}", "vendor_data": maps[n * n % 6]} for n in range(30)])
    cut = pa.concat_tables([rows.slice(0, 7).slice(0, 5), rows.slice(3, 9).slice(2, 7), rows.slice(12, 0), rows.slice(12)])
    (file,) = committed(site, cut)
    _, found = site.parquet(file)
    wanted = {row["symbol"]: row["vendor_data"] for row in rows.to_pylist()}
    assert {row["symbol"]: row["vendor_data"] for row in found.to_pylist()} == wanted
    assert found.schema.field("vendor_data").type.key_type == pa.string()


def test_plain_pyiceberg_reads_back_what_was_written(site: LakeSite) -> None:
    """A catalog by its address alone, every value, every type; filters that use partition and bounds find the rows."""
    rows = many()
    committed(site, rows)
    stranger = site.stranger()
    found = stranger.scan().to_arrow().sort_by("offset").cast(TRADES)
    assert found.to_pylist() == rows.to_pylist()
    expected = sum(s == "M'M" and e == "ASX" for s, e in zip(rows["symbol"].to_pylist(), rows["exchange"].to_pylist(), strict=True))
    assert stranger.scan(row_filter="exchange = 'ASX' and symbol = 'M''M'").count() == expected
    assert stranger.scan(row_filter="timestamp >= '2014-03-11T00:00:00+00:00'").count() == sum(o % 3 == 2 for o in range(40))
    assert stranger.scan(row_filter="price > 4").count() == sum(o / 8 + 1e-8 > 4 for o in range(40))


def test_texts_coded_by_a_decoder_are_written_as_the_same_rows(site: LakeSite) -> None:
    """Dictionary-encoded columns, in chunks with dictionaries of their own, change nothing that a reader sees."""
    rows = many()
    halves = []
    for half in (rows.slice(0, 13), rows.slice(13)):
        for name in ("symbol", "exchange", "asset_class", "side", "currency", "topic"):
            half = half.set_column(half.schema.get_field_index(name), name, half[name].combine_chunks().dictionary_encode())
        halves.append(half)
    committed(site, pa.concat_tables(halves))
    assert site.rows().sort_by("offset").cast(TRADES).to_pylist() == rows.to_pylist()


def test_bounds_in_the_manifest_are_exact(site: LakeSite) -> None:
    """Look-ups prune by them: a bound cut short must never hide a row."""
    committed(site, many())
    worker = site.worker()
    for file in worker.files(worker.head().snapshot_id):
        _, rows = site.parquet(file.path)
        for name in ("symbol", "exchange", "topic", "partition", "offset", "price"):
            values = rows[name].to_pylist()
            assert (file.lower[name], file.upper[name]) == (min(values), max(values)), name
        times = rows["timestamp"].cast(pa.int64()).to_pylist()
        assert (file.lower["timestamp"], file.upper["timestamp"]) == (min(times), max(times))


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    """Catalog, metadata and data on this machine are of mode 600, folders 700."""
    site = LakeSite(tmp_path / "a#b c")
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 2, events=["a"], tracker=b"x")), soon())
    worker.take_outbox(soon())
    home = site.settings.home_path()
    wrong = [p for p in home.rglob("*") if p.stat().st_mode & 0o077]
    assert wrong == []
    assert worker.tracker_blob(worker.head().vector[TP].tracker_file, TP) == (2, b"x")
