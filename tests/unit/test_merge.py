"""What a table of instruments becomes: the newest record of each company wins, an end keeps its row, and saying things twice changes nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2stream.instruments.merge import CHANGES, IS_END, KEPT, merged
from k2stream.rows import joined

TOPIC = "market.equities.reference_data.asx"
AN_INSTRUMENT: Mapping[str, Any] = {
    "message_id": "m",
    "company_id": "7078",
    "symbol": "BHP",
    "exchange": "ASX",
    "asset_class": "equities",
    "company_name": "BHP BILLITON LTD",
    "isin": "AU000000BHP4",
    "currency": "AUD",
    "is_active": True,
    "ingestion_timestamp": 1,
    "is_sample_data": False,
    "topic": TOPIC,
    "partition": 0,
    IS_END.name: False,
}
END = {**dict.fromkeys(("message_id", "symbol", "company_name", "isin", "currency", "is_active", "ingestion_timestamp")), IS_END.name: True}


def changes(said: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of CHANGES, a record each, at the offsets 0, 1, 2...; `end` in a record makes it an end at that time."""
    rows = []
    for offset, record in enumerate(said):
        more = {**END, "delisted_at": record["end"]} if "end" in record else {}
        rows.append({**AN_INSTRUMENT, "offset": offset, **record, **more})
    return pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in CHANGES], schema=CHANGES)


def table_after(*windows: pa.Table) -> dict[str, dict[str, Any]]:
    held = KEPT.empty_table()
    for window in windows:
        held = merged(held, window)
    rows = held.to_pylist()
    assert len({r["company_id"] for r in rows}) == len(rows), "one row a company"
    return {r["company_id"]: r for r in rows}


def test_the_newest_record_wins() -> None:
    """In one window and over two."""
    first, second = {"company_name": "BROKEN HILL"}, {"company_name": "BHP GROUP"}
    assert table_after(changes([first, second]))["7078"]["company_name"] == "BHP GROUP"
    assert table_after(changes([first]), changes([second]))["7078"]["company_name"] == "BHP GROUP"


def test_an_end_keeps_the_row_and_says_since_when() -> None:
    """Name and symbol stay for old trades; the row is no longer active and comes from the record that ended it."""
    row = table_after(changes([{}]), changes([{"company_id": "other"}, {"end": 5_000_000}]))["7078"]
    assert (row["symbol"], row["is_active"], row["offset"]) == ("BHP", False, 1)
    assert row["delisted_at"].timestamp() == 5


def test_an_end_in_the_window_of_its_record_finds_it() -> None:
    """Nothing but the window knows the company."""
    row = table_after(changes([{"company_name": "LATE"}, {"end": 1}]))["7078"]
    assert (row["company_name"], row["is_active"]) == ("LATE", False)


def test_a_second_end_keeps_the_time_of_the_first() -> None:
    """It was delisted once."""
    assert table_after(changes([{}, {"end": 1_000_000}]), changes([{"end": 9_000_000}]))["7078"]["delisted_at"].timestamp() == 1


def test_a_record_after_the_end_lists_again() -> None:
    """Latest wins, whatever came before."""
    row = table_after(changes([{}, {"end": 1}]), changes([{}]))["7078"]
    assert (row["is_active"], row["delisted_at"]) == (True, None)


def test_the_end_of_a_company_that_nobody_knows_makes_no_row() -> None:
    """A topic whose older records compaction took still tells of the end."""
    assert table_after(changes([{"end": 1}])) == {}


def test_companies_of_two_venues_with_one_id_are_two() -> None:
    """A company is told by asset class, exchange and id."""
    held = merged(KEPT.empty_table(), changes([{}, {"exchange": "NSX"}, {"asset_class": "futures"}]))
    assert held.num_rows == 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12), st.integers(0, 12))
def test_windows_may_be_cut_anywhere_and_come_twice(said: list[tuple[str, bool]], cut: int) -> None:
    """One window, two, or the whole once more: the same rows as record by record in a dict."""
    records = [{"company_id": company, "company_name": str(n), **({"end": 1_000_000 * n} if is_end else {})} for n, (company, is_end) in enumerate(said)]
    window = changes(records)
    expected: dict[str, tuple[str, bool, int]] = {}
    for n, record in enumerate(records):
        before = expected.get(record["company_id"])
        if "end" not in record:
            expected[record["company_id"]] = (record["company_name"], True, n)
        elif before is not None:
            expected[record["company_id"]] = (before[0], False, n)

    def said_by(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool, int]]:
        return {company: (r["company_name"], r["is_active"], r["offset"]) for company, r in rows.items()}

    assert said_by(table_after(window)) == said_by(table_after(window.slice(0, cut), window.slice(cut))) == expected
    assert said_by(table_after(window, window)).keys() == expected.keys()


VERSIONS = ((), (pa.field("lot", pa.int32()),), (pa.field("lot", pa.int64()), pa.field("sector", pa.string())))
"""Columns that three versions of a writer's schema add."""
LOT = (0, 7, 1 << 40)


def written(version: int, offset: int, record: Mapping[str, Any]) -> pa.Table:
    """One record as a writer of a version says it; an end is said by nobody's schema."""
    one = changes([record]).set_column(CHANGES.get_field_index("offset"), CHANGES.field("offset"), pa.array([offset]))
    if "end" in record:
        return one
    for field in VERSIONS[version]:
        one = one.append_column(field, pa.array([f"s{offset}" if field.name == "sector" else LOT[version]], field.type))
    return one


SAID = st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(range(len(VERSIONS))))


@given(st.lists(SAID, min_size=1, max_size=12), st.integers(0, 12))
def test_columns_of_three_versions_say_what_the_newest_writer_said(said: list[tuple[str, bool, int]], cut: int) -> None:
    """Null where its writer did not know the column, the row's own value behind an end, and exactly that for whoever is not spoken of."""
    records = [written(version, n, {"company_id": company, **({"end": 1} if is_end else {})}) for n, (company, is_end, version) in enumerate(said)]
    expected: dict[str, tuple[object, object, bool]] = {}
    for n, (company, is_end, version) in enumerate(said):
        if not is_end:
            expected[company] = (LOT[version] if version else None, f"s{n}" if version == 2 else None, True)
        elif company in expected:
            expected[company] = (*expected[company][:2], False)

    def said_by(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[object, object, bool]]:
        return {company: (r.get("lot"), r.get("sector"), r["is_active"]) for company, r in rows.items()}

    windows = [joined(part) for part in (records[:cut], records[cut:]) if part]
    assert said_by(table_after(joined(records))) == said_by(table_after(*windows)) == expected


def test_many_companies_keep_their_own_rows() -> None:
    """A tenth of 10,000 change, no other does."""
    held = merged(KEPT.empty_table(), changes({"company_id": str(n), "company_name": "old"} for n in range(10_000)))
    after = merged(held, changes({"company_id": str(n), "company_name": "new"} for n in range(0, 10_000, 10)))
    new = np.array(after["company_name"].to_pylist()) == "new"
    assert (after.num_rows, int(new.sum())) == (10_000, 1_000)
