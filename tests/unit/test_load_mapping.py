"""A mapping is checked before a row is read, and what is wrong with it is one sentence that names the key."""

from contextlib import closing
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import strictyaml

from k2stream.errors import LoadError
from k2stream.feed import asx, binance
from k2stream.feed.recording import MessageIds, Recording, shipped
from k2stream.load.chunk import Place
from k2stream.load.guess import drafted
from k2stream.load.mapping import FieldMapping, read_mapping
from k2stream.load.parquet_file import ParquetFile
from k2stream.load.rows import Converted, Target, convert, require_columns
from k2stream.load.run import open_rows
from k2stream.rows import avro_schema, body_schema
from k2stream.topics import TopicName
from k2stream.validate import Limits, validate
from k2stream.verdict import Reason

ROOT = Path(__file__).parents[2]
MAPPINGS = ROOT / "config" / "mappings"
FINGERPRINT = "0123456789abcdef0123456789abcdef"
NOW_US = 1_700_000_000_000_000
TRADES = """\
fields:
  symbol: Sym
  timestamp: {column: When, unit: ms}
  price: Px
  quantity: Qty
  currency: {constant: USD}
"""


def mapping(folder: Path, text: str, data_type: str = "trades", **constants: str) -> FieldMapping:
    path = folder / "map.yaml"
    path.write_text(text)
    return read_mapping(path, data_type, constants=constants)


def target(topic: str) -> Target:
    return Target(TopicName.parse(topic), FINGERPRINT, NOW_US, Limits(max_ahead_us=3_600_000_000, max_age_us=0))


def loaded(path: Path, fields: FieldMapping, topic: str) -> Converted:
    """All rows of a small file."""
    file = open_rows(path, fields, wanted=fields.columns)
    try:
        require_columns(fields, file.column_names, path.name)
        parts = [convert(chunk, fields, target(topic)) for chunk in file.chunks(Place())]
    finally:
        file.close()
    rows = pa.concat_tables([part.rows.cast(body_schema(fields.schema)) for part in parts])
    return Converted(rows, tuple(r for part in parts for r in part.refused))


def file_of(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def same_but_ids(rows: pa.Table, recording: Recording, *left_out: str) -> None:
    """Every column but ids and what only one of the two has."""
    names = [n for n in rows.column_names if n not in {"message_id", "trade_id", "quote_id", "ingestion_timestamp", "vendor_data", *left_out}]
    plain = pa.table({n: recording.rows[n].cast(rows[n].type) for n in names}, schema=rows.select(names).schema)
    assert rows.select(names).equals(plain)


@pytest.mark.parametrize("symbol", ["BHP", "DVN"])
def test_asx_files_give_the_rows_that_their_feed_gives(tmp_path: Path, symbol: str) -> None:
    """By the shipped mapping; equal lines stay two trades, for their row numbers differ."""
    path = tmp_path / "trades.csv.gz"
    path.write_bytes((ROOT / "k2stream/data/asx/trades" / f"{asx.COMPANIES[symbol]}.csv.gz").read_bytes())
    fields = read_mapping(MAPPINGS / "asx_trades.yaml", "trades", constants={"symbol": symbol})
    found = loaded(path, fields, "market.equities.trades.asx")
    recording = asx.trades(symbol, ids=MessageIds(UUID(int=0)), now_us=NOW_US)
    assert found.refused == ()
    same_but_ids(found.rows, recording, "source_sequence")
    assert len(set(found.rows["trade_id"].to_pylist())) == found.rows.num_rows
    assert found.rows["trade_id"][0].as_py() == "ASX-0123456789abcdef-1"
    kept = [dict(v) for v in recording.rows["vendor_data"].to_pylist()]
    assert [dict(v) for v in found.rows["vendor_data"].to_pylist()] == [{k: v for k, v in row.items() if k in fields.vendor_data} for row in kept]


def test_asx_quotes_and_companies_by_their_mappings(tmp_path: Path) -> None:
    """A quote that lacks a side is one; the companies are the four of the file."""
    path = tmp_path / "quotes.csv.xz"
    path.write_bytes((ROOT / "k2stream/data/asx/quotes/7181.csv.xz").read_bytes())
    found = loaded(path, read_mapping(MAPPINGS / "asx_quotes.yaml", "quotes", constants={"symbol": "DVN"}), "market.equities.quotes.asx")
    assert (found.rows.num_rows, found.refused) == (549, ())
    company = tmp_path / "company.csv"
    company.write_bytes(shipped("asx/company_info.csv"))
    found = loaded(company, read_mapping(MAPPINGS / "asx_instruments.yaml", "reference_data", constants={}), "market.equities.reference_data.asx")
    assert found.rows["symbol"].to_pylist() == ["MWR", "BHP", "DVN", "RIO"]
    assert found.rows["is_active"].to_pylist() == [True] * 4
    assert found.rows["listing_date"][1].as_py().isoformat() == "2008-05-06T14:00:00+00:00"


def test_binance_files_have_the_ids_of_the_live_feed(tmp_path: Path) -> None:
    """What came live is no second row when the day's file is loaded; prices are exact."""
    recording = binance.trades(ids=MessageIds(UUID(int=0)), now_us=NOW_US)
    lines = [
        f"{r['source_sequence']},{r['price']},{r['quantity']},0,{int(r['timestamp'].timestamp() * 1000)},{r['side'] == 'SELL'},True"
        for r in recording.rows.to_pylist()
    ]
    fields = read_mapping(MAPPINGS / "binance_trades.yaml", "trades", constants={"symbol": "BTCUSDT", "currency": "USDT"})
    found = loaded(file_of(tmp_path, "\n".join(lines)), fields, "market.crypto.trades.binance")
    assert found.refused == ()
    same_but_ids(found.rows, recording)
    assert found.rows["trade_id"].to_pylist() == recording.rows["trade_id"].to_pylist()


def test_rows_of_a_redundant_topic_are_rows_of_its_venue(tmp_path: Path) -> None:
    """Workers judge them so: with the feed's name in them every row would be a dead letter, and its ids another feed's."""
    path, fields = file_of(tmp_path, "Sym,When,Px,Qty\nBTCUSDT,1610064000278,1.5,1\n"), mapping(tmp_path, TRADES)
    plain, redundant = (loaded(path, fields, topic) for topic in ("market.crypto.trades.binance", "market.crypto.trades.binance-b"))
    assert (redundant.refused, redundant.rows["exchange"].to_pylist()) == ((), ["BINANCE"])
    assert redundant.rows.equals(plain.rows)
    as_decoded = redundant.rows.append_column("offset", pa.array([0]))
    assert validate(as_decoded, exchange="BINANCE", asset_class="crypto", now_us=NOW_US, limits=target("market.crypto.trades.binance-b").limits) == []


def test_a_row_that_cannot_be_one_says_which_field_lacks_what(tmp_path: Path) -> None:
    """The first field of the contract that is wrong, what was expected, what was found; its neighbours are rows."""
    good = "1610064000278,1.5,1"
    text = f"Sym,When,Px,Qty\nBHP,{good}\n,{good}\nBHP,yesterday,1.5,1\nBHP,1610064000278,1.123456789,1\nBHP,1610064000278,0,1\nBHP\nRIO,{good}\n"
    found = loaded(file_of(tmp_path, text), mapping(tmp_path, TRADES), "market.equities.trades.asx")
    assert found.rows["symbol"].to_pylist() == ["BHP", "RIO"]
    assert [(r.number, r.reason, r.text) for r in found.refused] == [
        (1, Reason.SYMBOL_REQUIRED, "symbol: expected a value, found nothing"),
        (2, Reason.MALFORMED, "timestamp: expected a count of ms since 1970, found 'yesterday'"),
        (3, Reason.MALFORMED, "price: expected a number of at most 10 digits and 8 decimals, found '1.123456789'"),
        (4, Reason.PRICE_MUST_BE_POSITIVE, "price must be greater than 0, found '0E-8'"),
        (5, Reason.MALFORMED, "expected 4 columns, found 1"),
    ]


def test_bytes_that_are_no_text_are_refused_alone(tmp_path: Path) -> None:
    """One wrong byte costs one row, not the block."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b"Sym,When,Px,Qty\nA\xff,1610064000278,1,1\nB,1610064000278,1,1\n")
    found = loaded(path, mapping(tmp_path, TRADES), "market.equities.trades.asx")
    assert [(r.number, r.reason) for r in found.refused] == [(0, Reason.INVALID_UTF8)]
    assert found.rows["symbol"].to_pylist() == ["B"]


@pytest.mark.parametrize(("encoding", "wrong"), [("cp1252", b"\x81"), ("ascii", "\xe4".encode())])
def test_bytes_that_an_encoding_lacks_are_refused_and_not_replaced(tmp_path: Path, encoding: str, wrong: bytes) -> None:
    """Nobody wrote a question mark; neighbours with letters of that encoding are rows, and rows without their columns stay malformed."""
    path, name = tmp_path / "rows.csv", "\xe4" if encoding == "cp1252" else "a"
    row = b",1610064000278,1,1\n"
    path.write_bytes(b"Sym,When,Px,Qty\nA" + wrong + row + name.encode(encoding) + row + b"B\nC" + row)
    found = loaded(path, mapping(tmp_path, f"file: {{encoding: {encoding}}}\n{TRADES}"), "market.equities.trades.asx")
    assert found.rows["symbol"].to_pylist() == [name, "C"]
    assert [(r.number, r.reason, r.text) for r in found.refused] == [
        (0, Reason.INVALID_UTF8, "symbol: expected text in the file's encoding"),
        (2, Reason.MALFORMED, "expected 4 columns, found 1"),
    ]


def test_words_lists_and_flags(tmp_path: Path) -> None:
    """Enums by a map, with a word for anything else; lists by their separator; ids keep their exchange."""
    text = (
        TRADES
        + '  side: {column: Side, values: {b: BUY, s: SELL}, otherwise: UNKNOWN}\n  trade_conditions: {column: Cond, separator: ";"}\n  trade_id: Id\n'
        + "vendor_data:\n  Side: Side\n"
    )
    path = file_of(tmp_path, "Sym,When,Px,Qty,Side,Cond,Id\nA,1,1,1,b,X;Y,7\nA,1,1,1,?,,ASX-8\nA,1,1,1,,Z,9\nA,1,1,1,s,Z,\n")
    found = loaded(path, mapping(tmp_path, text), "market.equities.trades.asx")
    assert found.rows["side"].to_pylist() == ["BUY", "UNKNOWN", "UNKNOWN"]
    assert found.rows["trade_conditions"].to_pylist() == [["X", "Y"], [], ["Z"]]
    assert found.rows["trade_id"].to_pylist() == ["ASX-7", "ASX-8", "ASX-9"]
    assert found.rows["vendor_data"].to_pylist() == [[("Side", "b")], [("Side", "?")], []]
    assert [(r.number, r.reason) for r in found.refused] == [(3, Reason.TRADE_ID_REQUIRED)]


def test_parquet_is_read_by_its_types_and_doubles_only_when_asked(tmp_path: Path) -> None:
    """Decimals and times as they are; which number a double means is the mapping's to say."""
    path = tmp_path / "rows.parquet"
    rows = {"Sym": ["A", "B"], "When": pa.array([1, 2], pa.timestamp("ns", "UTC")), "Px": [0.1, 39432.48], "Qty": pa.array([Decimal("1.5"), None])}
    pq.write_table(pa.table(rows), path)
    text = TRADES.replace("{column: When, unit: ms}", "When")
    with pytest.raises(LoadError, match=r"price: .*found double in column Px.*`double: shortest`"):
        loaded(path, mapping(tmp_path, text), "market.equities.trades.asx")
    found = loaded(path, mapping(tmp_path, text.replace("price: Px", "price: {column: Px, double: shortest}")), "market.equities.trades.asx")
    assert found.rows["price"].to_pylist() == [Decimal("0.10000000")]
    assert [(r.number, r.text) for r in found.refused] == [(1, "quantity: expected a number of at most 10 digits and 8 decimals, found nothing")]


def test_parquet_times_of_no_zone_are_refused_until_the_mapping_names_it(tmp_path: Path) -> None:
    """UTC is a guess like any other."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"Sym": ["A"], "When": pa.array([0], pa.timestamp("ms")), "Px": ["1"], "Qty": [2]}), path)
    with pytest.raises(LoadError, match=r"timestamp: column When holds times of no zone.*`timezone: UTC`"):
        loaded(path, mapping(tmp_path, TRADES.replace("{column: When, unit: ms}", "When")), "market.equities.trades.asx")
    text = TRADES.replace("{column: When, unit: ms}", "{column: When, timezone: Australia/Sydney}")
    found = loaded(path, mapping(tmp_path, text), "market.equities.trades.asx")
    assert found.rows["timestamp"][0].as_py().isoformat() == "1969-12-31T14:00:00+00:00"


WRONG = {
    "an unknown field": ("  prize: Px\n", r"fields: expected a field of trades .*found prize\. Did you mean price\?"),
    "a field of ours": ("  exchange: Ex\n", r"exchange is made by k2 load.*Leave it out"),
    "an unknown word": ("  side: {column: Side, values: {b: BOUGHT}}\n", r"fields\.side: expected one of BUY.*found BOUGHT"),
    "another kind's option": ("  source_sequence: {column: N, unit: ms}\n", r"fields\.source_sequence: unit says nothing of a whole number field"),
    "a column and a constant": ("  side: {column: Side, constant: BUY}\n", r"fields\.side: expected one of column, .*found column, constant"),
    "no zone": ("  timestamp: {column: When, timezone: Mars/Base}\n", r"fields\.timestamp\.timezone: Expected a zone.*found 'Mars/Base'"),
    "no unit": ("  timestamp: {column: When, unit: days}\n", r"fields\.timestamp\.unit: Input should be 's', 'ms', 'us' or 'ns', found 'days'"),
    "no directive": ('  timestamp: {column: When, format: "%Q"}\n', r"fields\.timestamp\.format: Expected %Y .*leaves out %Q"),
    "an unknown option": ("  price: {column: Px, scale: 2}\n", r"fields\.price\.scale: Extra inputs are not permitted"),
    "one sign for two": ('  price: {column: Px, decimal: ",", thousands: ","}\n', r"cannot stand before the decimals and between thousands"),
    "not YAML": ("  price: [\n", r"is not YAML as expected"),
    "no header and no names": ("file: {header: no}\n", r"file\.columns: expected the names"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_mapping_is_refused_by_file_and_key(tmp_path: Path, wrong: str) -> None:
    """What was expected, what was found."""
    line, says = WRONG[wrong]
    name = line.strip().partition(":")[0]
    text = "\n".join(kept for kept in TRADES.splitlines() if not kept.strip().startswith(f"{name}:")) + "\n"
    with pytest.raises(LoadError, match=rf"map\.yaml:? .*{says}|map\.yaml: {says}"):
        mapping(tmp_path, line + text if line.startswith("file") else text + line)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A field that the contract needs, a column that the file lacks, a constant that is no value."""
    with pytest.raises(LoadError, match=r"currency of trades is not mapped.*--set"):
        mapping(tmp_path, TRADES.replace("  currency: {constant: USD}\n", ""))
    assert mapping(tmp_path, TRADES.replace("  currency: {constant: USD}\n", ""), currency="AUD").fields["currency"].constant == "AUD"
    with pytest.raises(LoadError, match=r"expected the column Px, which the mapping reads, found Sym, When, Price, Qty"):
        loaded(file_of(tmp_path, "Sym,When,Price,Qty\n"), mapping(tmp_path, TRADES), "market.equities.trades.asx")
    with pytest.raises(LoadError, match=r"price: expected a number.*found 'cheap'\. Correct the constant"):
        loaded(file_of(tmp_path, "Sym,When,Px,Qty\nA,1,1,1\n"), mapping(tmp_path, TRADES, price="cheap"), "market.equities.trades.asx")


@pytest.mark.parametrize("data_type", ["trades", "quotes", "reference_data"])
def test_a_draft_maps_the_contracts_own_names(tmp_path: Path, data_type: str) -> None:
    """A file with the contract's columns drafts a mapping that is complete."""
    names = [f["name"] for f in avro_schema({"trades": "trade_v2", "quotes": "quote_v2", "reference_data": "reference_data_v2"}[data_type])["fields"]]
    text = drafted(data_type, names, {"timestamp": "1610064000278", "listing_date": "2014-03-03", "delisting_date": "03/03/2014"})
    drawn = mapping(tmp_path, text, data_type)
    assert set(drawn.fields) >= {n for n in names if n in ("symbol", "price", "bid_price", "company_id", "timestamp")}
    if data_type != "reference_data":
        assert drawn.fields["timestamp"].unit == "ms"


def test_a_draft_says_what_it_could_not_find(tmp_path: Path) -> None:
    """As a comment, so that the draft is YAML and the loader asks for it."""
    text = drafted("trades", ["Date", "Time", "Px", "Vol", "Odd Column"], {"Date": "03/10/2014", "Time": "07:57:14.754"})
    assert 'timestamp: {columns: [Date, Time], format: "%m/%d/%Y %H:%M:%S.%f", timezone: UTC}' in text
    assert "# symbol: expected a column" in text
    assert "price: Px\n" in text
    assert 'price: {column: Px, decimal: ",", thousands: "."}' in drafted("trades", ["Px"], {"Px": "1.234,50"})
    assert 'price: {column: Px, thousands: ","}' in drafted("trades", ["Px"], {"Px": "1,234.50"})
    assert "price: Px\n" in drafted("trades", ["Px"], {"Px": "1,234"})
    assert strictyaml.dirty_load(text, allow_flow_style=True).data["vendor_data"] == {"odd_column": "Odd Column"}
    with pytest.raises(LoadError, match="symbol, currency of trades is not mapped"):
        mapping(tmp_path, text)


def test_parquet_is_gone_on_with_at_any_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across row groups and chunks; a row's line is its number, its bytes are the row."""
    monkeypatch.setattr("k2stream.load.parquet_file.CHUNK_ROWS", 7)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(50), "other": [None] * 50}), path, row_group_size=20)
    for row in range(51):
        with closing(ParquetFile(path, wanted=("n",))) as file:
            chunks = list(file.chunks(Place(row, row + 1)))
            assert [n for chunk in chunks for n in chunk.columns["n"].to_pylist()] == list(range(row, 50))
            assert [int(line) for chunk in chunks for line in chunk.lines] == list(range(row + 1, 51))
            assert all(chunk.raw(0) == b'{"n": %d}' % chunk.first_row for chunk in chunks)
