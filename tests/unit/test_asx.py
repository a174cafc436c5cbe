"""The ASX readers: nothing dropped, nothing merged, exact decimals, Sydney time to UTC."""

import csv
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2stream.feed import asx
from k2stream.feed.recording import MessageIds, Recording, shipped

FEED = UUID("11111111-2222-4333-8444-555555555555")
NOW_US = 1_700_000_000_000_000
TRADES = {"MWR": 11, "BHP": 91_631, "DVN": 232, "RIO": 108_671}
QUOTES = {"MWR": 60, "BHP": 77_849, "DVN": 549, "RIO": 91_171}


def lines_of(symbol: str) -> list[str]:
    return shipped(f"asx/trades/{asx.COMPANIES[symbol]}.csv.gz").decode().splitlines()


@pytest.fixture(scope="module")
def trades() -> dict[str, Recording]:
    return {symbol: asx.trades(symbol, ids=MessageIds(FEED), now_us=NOW_US) for symbol in asx.COMPANIES}


def test_every_trade_of_every_file_is_read(trades: dict[str, Recording]) -> None:
    """Row counts are those of the files."""
    assert {s: r.rows.num_rows for s, r in trades.items()} == TRADES


def test_lines_that_repeat_byte_for_byte_stay_distinct_trades(trades: dict[str, Recording]) -> None:
    """8,558 lines repeat an earlier line of their file; every one has an id of its own."""
    repeated = sum(sum(n - 1 for n in Counter(lines_of(s)).values()) for s in asx.COMPANIES)
    assert repeated == 8_558
    for recording in trades.values():
        assert pc.count_distinct(recording.rows["trade_id"]).as_py() == recording.rows.num_rows


@pytest.mark.parametrize("symbol", asx.COMPANIES)
def test_sums_equal_those_of_the_plain_csv(symbol: str, trades: dict[str, Recording]) -> None:
    """price * quantity, summed exactly, as Python's csv and Decimal say."""
    expected = sum((Decimal(row[2]) * Decimal(row[3]) for row in csv.reader(lines_of(symbol))), Decimal(0))
    rows = trades[symbol].rows
    assert sum((p * q for p, q in zip(rows["price"].to_pylist(), rows["quantity"].to_pylist(), strict=True)), Decimal(0)) == expected


def test_numbers_count_each_session_from_one_in_file_order(trades: dict[str, Recording]) -> None:
    """id ASX-{session}-{symbol}-{n} and source_sequence n, n = 1.. without a hole in every session."""
    recording = trades["DVN"]
    assert [(s.name, s.rows) for s in recording.sessions] == [
        ("2014-03-10", 19), ("2014-03-11", 43), ("2014-03-12", 40), ("2014-03-13", 17), ("2014-03-14", 113),
    ]  # fmt: skip
    for session in recording.sessions:
        rows = recording.rows.slice(session.first_row, session.rows)
        assert rows["source_sequence"].to_pylist() == list(range(1, session.rows + 1))
        assert rows["trade_id"].to_pylist() == [f"ASX-{session.name}-DVN-{n}" for n in range(1, session.rows + 1)]


def test_sydney_summer_time_becomes_utc(trades: dict[str, Recording]) -> None:
    """13:50:38.849 AEDT on 10 March 2014 is 02:50:38.849 UTC."""
    assert trades["MWR"].rows["timestamp"][0].as_py() == datetime(2014, 3, 10, 2, 50, 38, 849_000, tzinfo=UTC)
    assert trades["MWR"].sessions[0].time_us == 1_394_419_838_849_000


def test_winter_time_and_the_day_of_the_change_are_right() -> None:
    """On 6 April 2014 Sydney goes from UTC+11 to UTC+10 at 3:00; in July it is UTC+10."""
    lines = b"04/06/2014,01:30:00.000,1,1,0,,\r\n04/06/2014,03:30:00.000,1,1,0,,\r\n07/01/2014,10:00:00.000,1,1,0,,\r\n"
    rows = asx.read_trades("X", lines, ids=MessageIds(FEED), now_us=NOW_US).rows
    assert [t.isoformat() for t in rows["timestamp"].to_pylist()] == ["2014-04-05T14:30:00+00:00", "2014-04-05T17:30:00+00:00", "2014-07-01T00:00:00+00:00"]


def test_what_has_no_field_is_kept_in_vendor_data(trades: dict[str, Recording]) -> None:
    """Qualifiers, venue and the unexplained seventh column survive; every row says that it is recorded."""
    off_market, *_ = trades["BHP"].rows.slice(0, 1).to_pylist()
    assert dict(off_market["vendor_data"]) == {"company_id": "7078", "qualifiers": "3", "venue": "X", "is_sample_data": "true"}
    assert (off_market["side"], off_market["currency"], off_market["price"]) == ("UNKNOWN", "AUD", Decimal("36.667"))
    seventh = Counter(dict(v).get("column_7", "") for v in trades["BHP"].rows["vendor_data"].to_pylist())
    assert seventh == Counter(line.rstrip("\r").split(",")[6] for line in lines_of("BHP"))


@pytest.mark.parametrize("symbol", ["MWR", "DVN", "RIO"])
def test_quotes_are_read_whole_zero_and_crossed_ones_too(symbol: str) -> None:
    """Row counts are those of the files; a side without a quote stays zero."""
    recording = asx.quotes(symbol, ids=MessageIds(FEED), now_us=NOW_US)
    assert recording.rows.num_rows == QUOTES[symbol]
    assert recording.rows["quote_id"][0].as_py() == f"ASX-{recording.sessions[0].name}-{symbol}-1"
    if symbol == "RIO":
        assert pc.any(pc.equal(recording.rows["ask_price"], pa.scalar(Decimal(0), pa.decimal128(18, 8)))).as_py()


def test_a_session_in_two_pieces_is_refused() -> None:
    """Numbers count rows of a session in file order; a date that comes back would be numbered twice."""
    lines = b"".join(b"03/%d/2014,10:00:00.000,1,1,0,,\r\n" % day for day in (10, 11, 10))
    with pytest.raises(pa.ArrowInvalid, match="must lie together"):
        asx.read_trades("X", lines, ids=MessageIds(FEED), now_us=NOW_US)


def test_ids_of_messages_are_uuids_and_never_repeat() -> None:
    """Two takes of one feed, and two feeds, share nothing."""
    ids = MessageIds(FEED)
    taken = [*ids.take(3).to_pylist(), *ids.take(2).to_pylist(), *MessageIds(UUID("99999999-2222-4333-8444-555555555555")).take(2).to_pylist()]
    assert len({UUID(i) for i in taken}) == 7
