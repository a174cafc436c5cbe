"""ASX ticks from the vendor's CSV files: local time to UTC, numbers by row order, everything else kept as it came.

The files hold neither ids nor sequence numbers, so both are made here, at the source: n counts the rows of (symbol, session)
in file order from the session's first row, before any filter or limit. Rows that repeat byte for byte are distinct trades.

    03/10/2014,07:57:14.754,36.667,20000,3,X,               trade: date, time, price, volume, qualifiers, venue, seventh column
    03/10/2014,05:43:45.676,37.7,37.73,300,600              quote: date, time, bid, ask, bid volume, ask volume
    7078,BHP,BHP BILLITON LTD,AU000000BHP4,05/07/2008,03/31/2014    company: id, symbol, name, ISIN, first and last day of the record
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from k2stream.feed.recording import SAMPLE, MessageIds, Recording, Session, constant, empty_lists, maps, shipped, times
from k2stream.rows import DECIMAL, TIMESTAMP

SYDNEY = ZoneInfo("Australia/Sydney")

COMPANIES: Mapping[str, str] = {"MWR": "3153", "BHP": "7078", "DVN": "7181", "RIO": "7458"}
"""Symbol to the vendor's company id, which names its files."""

TRADE_COLUMNS: Mapping[str, pa.DataType] = {
    "date": pa.string(),
    "time": pa.time32("ms"),
    "price": DECIMAL,
    "quantity": DECIMAL,
    "qualifiers": pa.string(),
    "venue": pa.string(),
    "column_7": pa.string(),
}
QUOTE_COLUMNS: Mapping[str, pa.DataType] = {
    "date": pa.string(),
    "time": pa.time32("ms"),
    "bid_price": DECIMAL,
    "ask_price": DECIMAL,
    "bid_quantity": DECIMAL,
    "ask_quantity": DECIMAL,
}

COMPANY_COLUMNS: Mapping[str, pa.DataType] = dict.fromkeys(("company_id", "symbol", "company_name", "ISIN", "start_date", "end_date"), pa.string())

HOUR_US = 3_600_000_000


def trades(symbol: str, *, ids: MessageIds, now_us: int) -> Recording:
    """All shipped trades of one symbol in file order; raises KeyError for a symbol that is not shipped."""
    return read_trades(symbol, shipped(f"asx/trades/{COMPANIES[symbol]}.csv.gz"), ids=ids, now_us=now_us)


def quotes(symbol: str, *, ids: MessageIds, now_us: int) -> Recording:
    """All shipped quotes of one symbol in file order; some are crossed, some are zero at the open."""
    return read_quotes(symbol, shipped(f"asx/quotes/{COMPANIES[symbol]}.csv.xz"), ids=ids, now_us=now_us)


def read_trades(symbol: str, csv: bytes, *, ids: MessageIds, now_us: int) -> Recording:
    """Trades of one vendor file; `now_us` becomes the ingestion time. Raises pa.ArrowInvalid naming row and column of what it cannot read."""
    ticks = _ticks(csv, TRADE_COLUMNS)
    sessions, utc, native, numbers = _numbered(symbol, ticks)
    count = ticks.num_rows
    rows = pa.table(
        {
            "message_id": ids.take(count),
            "trade_id": native,
            **_who(symbol, count),
            "timestamp": utc,
            "price": ticks["price"],
            "quantity": ticks["quantity"],
            "currency": constant("AUD", count),
            "side": constant("UNKNOWN", count),
            "trade_conditions": empty_lists(count),
            "source_sequence": numbers,
            "ingestion_timestamp": times(now_us, count),
            "platform_sequence": pa.nulls(count, pa.int64()),
            "vendor_data": _vendor_data(symbol, ticks),
        }
    )
    return Recording("equities", "trades", "asx", rows, sessions)


def read_quotes(symbol: str, csv: bytes, *, ids: MessageIds, now_us: int) -> Recording:
    """Quotes of one vendor file, as `read_trades` reads trades."""
    ticks = _ticks(csv, QUOTE_COLUMNS)
    sessions, utc, native, numbers = _numbered(symbol, ticks)
    count = ticks.num_rows
    vendor_data = maps([{"company_id": COMPANIES.get(symbol, ""), **dict([SAMPLE])}], pa.repeat(pa.scalar(0, pa.int32()), count))
    rows = pa.table(
        {
            "message_id": ids.take(count),
            "quote_id": native,
            **_who(symbol, count),
            "timestamp": utc,
            **{name: ticks[name] for name in ("bid_price", "bid_quantity", "ask_price", "ask_quantity")},
            "currency": constant("AUD", count),
            "source_sequence": numbers,
            "ingestion_timestamp": times(now_us, count),
            "platform_sequence": pa.nulls(count, pa.int64()),
            "vendor_data": vendor_data,
        }
    )
    return Recording("equities", "quotes", "asx", rows, sessions)


def instruments(*, ids: MessageIds, now_us: int) -> Recording:
    """The shipped companies."""
    return read_instruments(shipped("asx/company_info.csv"), ids=ids, now_us=now_us)


def read_instruments(csv: bytes, *, ids: MessageIds, now_us: int) -> Recording:
    """Companies of a vendor file with a header; `now_us` becomes the ingestion time. Raises pa.ArrowInvalid naming row and column.

    The vendor's dates say from when to when its record speaks of the company: the last is the day of its extract and no delisting,
    so both stay in vendor_data, and all companies are listed.
    """
    found = pa.csv.read_csv(BytesIO(csv), convert_options=pa.csv.ConvertOptions(column_types=dict(COMPANY_COLUMNS))).combine_chunks()
    count = found.num_rows
    dated = found.select(["start_date", "end_date"]).to_pylist()
    rows = pa.table(
        {
            "message_id": ids.take(count),
            "company_id": found["company_id"],
            "symbol": found["symbol"],
            "exchange": constant("ASX", count),
            "asset_class": constant("equities", count),
            "company_name": found["company_name"],
            "isin": found["ISIN"],
            "currency": constant("AUD", count),
            "listing_date": pa.nulls(count, TIMESTAMP),
            "delisting_date": pa.nulls(count, TIMESTAMP),
            "is_active": pa.repeat(pa.scalar(True), count),
            "ingestion_timestamp": times(now_us, count),
            "vendor_data": maps([{**row, **dict([SAMPLE])} for row in dated], pa.array(range(count), pa.int32())),
        }
    )
    return Recording("equities", "reference_data", "asx", rows)


def _ticks(csv: bytes, columns: Mapping[str, pa.DataType]) -> pa.Table:
    return pa.csv.read_csv(
        BytesIO(csv),
        read_options=pa.csv.ReadOptions(column_names=list(columns)),
        convert_options=pa.csv.ConvertOptions(column_types=dict(columns), strings_can_be_null=False),
    ).combine_chunks()


def _who(symbol: str, count: int) -> dict[str, pa.Array]:
    return {"symbol": constant(symbol, count), "exchange": constant("ASX", count), "asset_class": constant("equities", count)}


def _numbered(symbol: str, ticks: pa.Table) -> tuple[tuple[Session, ...], pa.Array, pa.Array, pa.Array]:
    """Sessions, UTC times, ids and sequence numbers."""
    dates = ticks["date"].combine_chunks().dictionary_encode()
    days = dates.indices.to_numpy()
    names = [datetime.strptime(d, "%m/%d/%Y").replace(tzinfo=SYDNEY).date().isoformat() for d in dates.dictionary.to_pylist()]
    first = np.flatnonzero(np.diff(days, prepend=-1))
    if len(first) != len(names):
        raise pa.ArrowInvalid(f"{symbol}: the rows of a session date must lie together, found {len(names)} dates in {len(first)} runs.")
    rows = np.diff(first, append=len(days))
    numbers = np.arange(len(days), dtype=np.int64) - np.repeat(first, rows) + 1
    utc = _utc(names, days, ticks["time"])
    prefixes = pa.DictionaryArray.from_arrays(dates.indices, pa.array([f"ASX-{name}-{symbol}-" for name in names])).cast(pa.string())
    native = pc.binary_join_element_wise(prefixes, pa.array(numbers).cast(pa.string()), "")
    sessions = tuple(
        Session(symbol, name, int(at), int(count), int(utc[at])) for name, at, count in zip(names, first, rows, strict=True)
    )
    return sessions, pa.array(utc).cast(TIMESTAMP), native, pa.array(numbers)


def _utc(names: list[str], days: NDArray[np.int32], time: pa.ChunkedArray) -> NDArray[np.int64]:
    """Microseconds since the epoch. The zone is asked once an hour of the file: Sydney changes its offset on the hour."""
    midnights = np.array([int((datetime.fromisoformat(n).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) for n in names])
    local = midnights[days] + time.cast(pa.int32()).to_numpy().astype(np.int64) * 1000
    hours, at = np.unique(local // HOUR_US, return_inverse=True)
    offsets = np.array([_offset_us(int(hour)) for hour in hours], dtype=np.int64)
    utc: NDArray[np.int64] = local - offsets[at]
    return utc


def _offset_us(local_hour: int) -> int:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=local_hour)).replace(tzinfo=SYDNEY)
    return int((local.utcoffset() or timedelta()) / timedelta(microseconds=1))


def _vendor_data(symbol: str, ticks: pa.Table) -> pa.DictionaryArray:
    """What the contract has no field for; few distinct combinations in a file of many rows."""
    kept = ("qualifiers", "venue", "column_7")
    joined = pc.binary_join_element_wise(*(ticks[name] for name in kept), ",").combine_chunks().dictionary_encode()
    company = COMPANIES.get(symbol, "")
    distinct = [dict([("company_id", company), *_filled(zip(kept, text.split(","), strict=True)), SAMPLE]) for text in joined.dictionary.to_pylist()]
    return maps(distinct, joined.indices)


def _filled(pairs: "zip[tuple[str, str]]") -> list[tuple[str, str]]:
    return [(name, text) for name, text in pairs if text]
