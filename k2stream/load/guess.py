"""A first mapping, drafted from a file's column names and first rows: for a person to read and correct."""

import re
from collections.abc import Iterator, Mapping, Sequence

from k2stream.load.mapping import Kind, kind_of, mappable, required

NAMES: Mapping[str, Sequence[str]] = {
    "symbol": ("symbol", "ticker", "instrument", "pair", "productid", "code", "market"),
    "timestamp": ("timestamp", "time", "datetime", "ts", "tradetime", "eventtime", "exchangetimestamp", "date"),
    "price": ("price", "px", "tradeprice", "lastprice", "last", "rate"),
    "quantity": ("quantity", "qty", "volume", "size", "vol", "amount", "lastsize"),
    "currency": ("currency", "ccy", "quotecurrency"),
    "side": ("side", "aggressor", "aggressorside", "takerside", "buysell"),
    "trade_id": ("tradeid", "id", "tid", "execid", "matchid"),
    "quote_id": ("quoteid", "id", "updateid"),
    "trade_conditions": ("tradeconditions", "conditions", "qualifiers", "flags"),
    "source_sequence": ("sourcesequence", "sequence", "seq", "sequencenumber", "seqnum"),
    "bid_price": ("bidprice", "bid", "bidpx", "bestbid"),
    "bid_quantity": ("bidquantity", "bidsize", "bidvolume", "bidqty", "bestbidsize"),
    "ask_price": ("askprice", "ask", "askpx", "bestask", "offer"),
    "ask_quantity": ("askquantity", "asksize", "askvolume", "askqty", "bestasksize"),
    "company_id": ("companyid", "instrumentid", "securityid"),
    "company_name": ("companyname", "name", "description"),
    "isin": ("isin",),
    "listing_date": ("listingdate", "startdate", "listed"),
    "delisting_date": ("delistingdate", "enddate", "delisted"),
    "is_active": ("isactive", "active"),
}
"""Field -> what columns of it are called, without case and punctuation, the best first."""

UNITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}
"""Digits of a time of these years -> its unit."""
FORMATS = (
    (r"^\d{1,2}/\d{1,2}/\d{4}", "%m/%d/%Y"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
    (r"^\d{8}", "%Y%m%d"),
    (r"^\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
)
"""Dates that ISO 8601 does not know; whether the day or the month comes first is for a person to say."""


def drafted(data_type: str, columns: Sequence[str], sample: Mapping[str, str]) -> str:
    """A mapping file; `sample` holds a value of each column."""
    return "\n".join(_lines(data_type, columns, sample)) + "\n"


def _lines(data_type: str, columns: Sequence[str], sample: Mapping[str, str]) -> Iterator[str]:
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}
    taken: set[str] = set()
    yield f"# A draft of how columns become {data_type}: read it, correct it, try it with --dry-run."
    yield "fields:"
    for field in mappable(data_type):
        column = next((plain[name] for name in NAMES.get(field, ()) if name in plain and plain[name] not in taken), None)
        if column is not None:
            used = _dates(field, plain, column)
            taken.update(used)
            yield f"  {field}: {_source(data_type, field, used, sample)}"
        elif field in required(data_type):
            yield f"  # {field}: expected a column, or {{constant: ...}}, or --set {field}=..."
    rest = [column for column in columns if column not in taken]
    if rest:
        yield "vendor_data:  # kept as it is with each row"
    yield from (f"  {_key(column)}: {_quoted(column)}" for column in rest)


def _dates(field: str, plain: Mapping[str, str], column: str) -> list[str]:
    """A date and a time that stand in two columns."""
    if field == "timestamp" and "date" in plain and "time" in plain and column in (plain["date"], plain["time"]):
        return [plain["date"], plain["time"]]
    return [column]


def _source(data_type: str, field: str, columns: Sequence[str], sample: Mapping[str, str]) -> str:
    kind = kind_of(data_type, field)
    if kind is Kind.DECIMAL and (signs := _signs(sample.get(columns[0], ""))):
        return f"{{column: {_quoted(columns[0])}, {signs}}}"
    if kind is not Kind.TIME:
        return _quoted(columns[0])
    text = " ".join(sample.get(column, "") for column in columns)
    where = f"column: {_quoted(columns[0])}" if len(columns) == 1 else f"columns: [{', '.join(map(_quoted, columns))}]"
    return "{" + ", ".join([where, *_time_options(text)]) + "}"


def _signs(text: str) -> str:
    """How a number is written, where that can be told: 1,234 alone may be either."""
    if re.fullmatch(r"-?\d{1,3}(\.\d{3})+,\d+", text):
        return 'decimal: ",", thousands: "."'
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+\.\d+", text):
        return 'thousands: ","'
    return 'decimal: ","' if re.fullmatch(r"-?\d+,(\d{1,2}|\d{4,})", text) else ""


def _time_options(text: str) -> Iterator[str]:
    whole = text.partition(".")[0]
    if whole.isdigit() and len(whole) in UNITS:
        yield f"unit: {UNITS[len(whole)]}"
        return
    if form := next((form for pattern, form in FORMATS if re.match(pattern, text)), ""):
        clock = " %H:%M:%S" if ":" in text else ""
        yield f'format: "{form}{clock}{".%f" if clock and "." in text.rpartition(":")[2] else ""}"'
    if not re.search(r"(Z|[+-]\d{2}:?\d{2})$", text):
        yield "timezone: UTC"


def _key(column: str) -> str:
    return re.sub(r"\W+", "_", column.strip().lower()).strip("_") or "unnamed"


def _quoted(column: str) -> str:
    return column if re.fullmatch(r"[A-Za-z_][\w ]*", column) else "'" + column.replace("'", "''") + "'"
