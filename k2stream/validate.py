"""What a decoded trade or quote must satisfy to become a row; the first rule it breaks, in the order of its RULES, is its reason.

One cheap pass when all is well: a few kernels a column, and one look at the dictionary where a column has one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.rows import key_columns
from k2stream.verdict import Reason

SIDES = pa.array(["BUY", "SELL", "SELL_SHORT", "UNKNOWN"])
INT64 = np.iinfo(np.int64)
FOUND_CHARACTERS = 200
"""Of a word that broke a rule; the letter has the whole record."""

Mask = NDArray[np.bool_]
"""True: the row breaks the rule."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far event times may lie from where they belong."""

    max_ahead_us: int
    """Event time at most so far after the row's own ingestion time, and after now: an ingestion time may be wrong too."""
    max_age_us: int
    """Event time at most so far before now; 0: off."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """One row that broke a rule."""

    row: int
    offset: int
    reason: Reason
    text: str
    """For a person: what was expected, what was found."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the rows of one topic are measured against."""

    exchange: str
    asset_class: str
    now_us: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason to refuse a row."""

    reason: Reason
    column: str
    broken: Callable[[pa.Table, Expected], Mask | None]
    """Which rows break it; None: none does."""
    wanted: Callable[[Expected], str]


def validate(rows: pa.Table, *, exchange: str, asset_class: str, now_us: int, limits: Limits) -> list[Invalid]:
    """Rows that must not reach the table, in row order, each with the first rule it breaks.

    `exchange` and `asset_class` are the topic's; a row's must be equal but for case. The caller drops the rows.
    """
    expected, rules = Expected(exchange, asset_class, now_us, limits), RULES_OF[key_columns(rows.column_names)[2]]
    return broken_rules(rows, rules, expected)


def broken_rules(rows: pa.Table, rules: Sequence[Rule], expected: Expected) -> list[Invalid]:
    """Rows that break one of `rules`, in row order, each with the first that it breaks."""
    first = np.zeros(rows.num_rows, dtype=np.int8)
    for number in range(len(rules), 0, -1):
        broken = rules[number - 1].broken(rows, expected) if rows.num_rows else None
        if broken is not None:
            first[broken] = number
    return [_invalid(rows, int(row), rules[first[row] - 1], expected) for row in np.flatnonzero(first)]


def _invalid(rows: pa.Table, row: int, rule: Rule, expected: Expected) -> Invalid:
    value = rows[rule.column][row]
    found = value.cast(pa.int64()).as_py() if pa.types.is_timestamp(value.type) else value.as_py()
    text = f"{rule.column} must be {rule.wanted(expected)}, found {found if isinstance(found, int) else str(found)[:FOUND_CHARACTERS]!r}"
    return Invalid(row, rows["offset"][row].as_py(), rule.reason, text)


def _words(column: pa.ChunkedArray, is_bad: Callable[[pa.Array], pa.Array]) -> Mask | None:
    """Rows whose word is bad or null; a dictionary is asked once, not once a row."""
    masks = [_chunk_of_words(chunk, is_bad) for chunk in column.chunks]
    if all(m is None for m in masks):
        return None
    return np.concatenate([np.zeros(len(c), bool) if m is None else m for c, m in zip(column.chunks, masks, strict=True)])


def _chunk_of_words(chunk: pa.Array, is_bad: Callable[[pa.Array], pa.Array]) -> Mask | None:
    if not pa.types.is_dictionary(chunk.type):
        return _mask(is_bad(chunk))
    bad = is_bad(chunk.dictionary)
    if not chunk.null_count and not bad.null_count and not pc.any(bad).as_py():
        return None
    return _mask(bad.take(chunk.indices))


def _mask(bad: pa.Array | pa.ChunkedArray) -> Mask | None:
    """Null is broken too: no column that a rule asks for may be null."""
    if not bad.null_count and not pc.any(bad).as_py():
        return None
    mask: Mask = bad.fill_null(True).to_numpy(**({"zero_copy_only": False} if isinstance(bad, pa.Array) else {}))
    return mask


def _is_empty(words: pa.Array) -> pa.Array:
    return pc.equal(pc.binary_length(words), 0)


def _required(column: str) -> Callable[[pa.Table, Expected], Mask | None]:
    return lambda rows, _: _words(rows[column], _is_empty)


def _equal(column: str, wanted: Callable[[Expected], str]) -> Callable[[pa.Table, Expected], Mask | None]:
    def broken(rows: pa.Table, expected: Expected) -> Mask | None:
        word = wanted(expected).upper()
        return _words(rows[column], lambda words: pc.not_equal(pc.ascii_upper(words), word))

    return broken


def _side(rows: pa.Table, _: Expected) -> Mask | None:
    return _words(rows["side"], lambda words: pc.invert(pc.is_in(words, SIDES)))


def _positive(column: str) -> Callable[[pa.Table, Expected], Mask | None]:
    def broken(rows: pa.Table, _: Expected) -> Mask | None:
        values = rows[column]
        return _mask(pc.less_equal(values, pa.scalar(0, values.type)))

    return broken


def _not_negative(column: str) -> Callable[[pa.Table, Expected], Mask | None]:
    """For sides of a quote, where 0 says that nobody bids or asks; a crossed quote is the venue's own word and stays."""

    def broken(rows: pa.Table, _: Expected) -> Mask | None:
        values = rows[column]
        return _mask(pc.less(values, pa.scalar(0, values.type)))

    return broken


def _times(rows: pa.Table, column: str) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows[column].cast(pa.int64()).fill_null(0).to_numpy()
    return times


def _in_future(rows: pa.Table, expected: Expected) -> Mask | None:
    ahead = expected.limits.max_ahead_us
    latest = np.minimum(_times(rows, "ingestion_timestamp"), min(expected.now_us, INT64.max - ahead)) + ahead
    broken: Mask = _times(rows, "timestamp") > latest
    return broken if broken.any() else None


def _too_old(rows: pa.Table, expected: Expected) -> Mask | None:
    if not expected.limits.max_age_us:
        return None
    broken: Mask = _times(rows, "timestamp") < max(expected.now_us - expected.limits.max_age_us, INT64.min)
    return broken if broken.any() else None


WHO: tuple[Rule, ...] = (
    Rule(Reason.SYMBOL_REQUIRED, "symbol", _required("symbol"), lambda _: "a non-empty string"),
    Rule(Reason.INVALID_EXCHANGE, "exchange", _equal("exchange", lambda e: e.exchange), lambda e: f"{e.exchange} as its topic says"),
    Rule(Reason.INVALID_ASSET_CLASS, "asset_class", _equal("asset_class", lambda e: e.asset_class), lambda e: f"{e.asset_class} as its topic says"),
)
WHEN: tuple[Rule, ...] = (
    Rule(
        Reason.TIMESTAMP_IN_FUTURE,
        "timestamp",
        _in_future,
        lambda e: f"at most {e.limits.max_ahead_us} microseconds after ingestion_timestamp and after now",
    ),
    Rule(Reason.TIMESTAMP_TOO_OLD, "timestamp", _too_old, lambda e: f"at most {e.limits.max_age_us} microseconds before now"),
)
MESSAGE_ID = Rule(Reason.MESSAGE_ID_REQUIRED, "message_id", _required("message_id"), lambda _: "a non-empty string")

RULES: tuple[Rule, ...] = (
    MESSAGE_ID,
    Rule(Reason.TRADE_ID_REQUIRED, "trade_id", _required("trade_id"), lambda _: "a non-empty string"),
    *WHO,
    Rule(Reason.INVALID_SIDE, "side", _side, lambda _: "one of BUY, SELL, SELL_SHORT, UNKNOWN"),
    Rule(Reason.PRICE_MUST_BE_POSITIVE, "price", _positive("price"), lambda _: "greater than 0"),
    Rule(Reason.QUANTITY_MUST_BE_POSITIVE, "quantity", _positive("quantity"), lambda _: "greater than 0"),
    *WHEN,
)
"""Of a trade."""

QUOTE_RULES: tuple[Rule, ...] = (
    MESSAGE_ID,
    Rule(Reason.QUOTE_ID_REQUIRED, "quote_id", _required("quote_id"), lambda _: "a non-empty string"),
    *WHO,
    *(Rule(Reason.PRICE_MUST_NOT_BE_NEGATIVE, name, _not_negative(name), lambda _: "0 or greater") for name in ("bid_price", "ask_price")),
    *(Rule(Reason.QUANTITY_MUST_NOT_BE_NEGATIVE, name, _not_negative(name), lambda _: "0 or greater") for name in ("bid_quantity", "ask_quantity")),
    *WHEN,
)
INSTRUMENT_RULES: tuple[Rule, ...] = (
    MESSAGE_ID,
    Rule(Reason.COMPANY_ID_REQUIRED, "company_id", _required("company_id"), lambda _: "a non-empty string"),
    *WHO,
)

RULES_OF: Mapping[str, tuple[Rule, ...]] = {"trade_id": RULES, "quote_id": QUOTE_RULES}
"""By the native id's column."""
