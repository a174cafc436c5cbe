"""The newest word on each company: what a table holds and the changes of a window, as what it holds afterwards; pure.

A company is told by (asset class, exchange, company id). The newest record wins, in the order in which the records lie in their partition;
applied once more, the same records change nothing. A record without a value is the end of a listing: the row stays, for trades of
yesterday still need its name, and says when it ended. The end of a company that nobody knows makes no row.

Rows may have columns behind these, which writers added (k2stream.decode.added). The newest record decides there too: null if its writer
did not know the column, whatever the row said before. An end says nothing, so the row keeps what it had.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from k2stream.rows import INSTRUMENTS, TIMESTAMP, joined

COMPANY = ("asset_class", "exchange", "company_id")
"""Columns that tell one instrument from another."""

DELISTED_AT = pa.field("delisted_at", TIMESTAMP)
"""When the record came that ended the listing; null while it is listed."""

KEPT = pa.schema([*INSTRUMENTS, DELISTED_AT])
"""Columns of the table of instruments, before those that writers add."""

IS_END = pa.field("@is_end", pa.bool_(), nullable=False)
"""No field of Avro can have this name."""
CHANGES = pa.schema([*KEPT, IS_END])
"""A record each, added columns behind: for the end of a listing only COMPANY, origin and `delisted_at` say something."""

ORIGIN = ("topic", "partition", "offset")


def merged(held: pa.Table, changes: pa.Table) -> pa.Table:
    """Rows of KEPT: `held` (no company twice) after `changes` (CHANGES, oldest first), with the added columns of both, as wide as the wider.

    Order is not kept.
    """
    if not changes.num_rows:
        return held
    companies = companies_of(changes)
    newest, value = _last(companies, np.arange(changes.num_rows)), _last(companies, _rows_with_a_value(changes))
    ends = changes[IS_END.name].to_numpy()
    stated = changes.take(pa.array(list(value.values()), pa.int64())).drop_columns([IS_END.name])
    ended = [company for company, row in newest.items() if ends[row]]
    stays, known = _split(held, newest.keys())
    rest = known.filter(pc.is_in(companies_of(known), pa.array([c for c in ended if c not in value], pa.string())))
    found = joined([stated, rest])
    return joined([stays, _ended(found, changes, {company: newest[company] for company in ended})])


def companies_of(rows: pa.Table) -> pa.ChunkedArray:
    """One word a row that names its company."""
    words = [rows[name].cast(pa.string()) for name in COMPANY]
    return pc.binary_join_element_wise(*words, "\x1f")


def _rows_with_a_value(changes: pa.Table) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.flatnonzero(~changes[IS_END.name].to_numpy())
    return found


def _last(companies: pa.ChunkedArray, rows: NDArray[np.int64]) -> dict[str, int]:
    """Of these rows the last of each company."""
    return dict(zip(companies.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))


def _split(held: pa.Table, companies: Iterable[str]) -> tuple[pa.Table, pa.Table]:
    """Rows of other companies, rows of these."""
    is_theirs = pc.is_in(companies_of(held), pa.array(list(companies), pa.string()))
    return held.filter(pc.invert(is_theirs)), held.filter(is_theirs)


def _ended(rows: pa.Table, changes: pa.Table, ends: Mapping[str, int]) -> pa.Table:
    """`rows` with those of `ends` (company -> row of the change that ended it) marked as delisted, and as coming from there."""
    if not ends:
        return rows
    at = np.array([ends.get(company, -1) for company in companies_of(rows).to_pylist()], dtype=np.int64)
    if not (at >= 0).any():
        return rows
    is_ended, last = pa.array(at >= 0), changes.take(pa.array(np.maximum(at, 0)))
    since = pc.coalesce(rows["delisted_at"], last["delisted_at"])
    changed = {name: pc.if_else(is_ended, last[name], rows[name]) for name in ORIGIN}
    changed["is_active"] = pc.and_(rows["is_active"], pc.invert(is_ended))
    changed["delisted_at"] = pc.if_else(is_ended, since, rows["delisted_at"])
    return pa.table([changed.get(name, rows[name]) for name in rows.column_names], schema=rows.schema)
