"""Reference data of the first version becomes what a slow reading by fastavro says, on both paths; a date that is none is a letter that names it."""

import io
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.decode import decoder as decoder_module
from k2stream.decode.decoder import Decoder
from k2stream.decode.framing import frame
from k2stream.records import APPEND_TIME, HEADER, Batch, LogBatch
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.verdict import Decoded, Reason
from tests.properties.trade_records import body_of

TOPIC = "market.equities.reference_data.asx"
SCHEMAS = {1: avro_schema("reference_data_v1"), 2: avro_schema("reference_data_v2")}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATE = st.dates(min_value=date(2, 1, 1)).map(lambda d: f"{d.month:02}/{d.day:02}/{d.year:04}")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
COMPANY = st.fixed_dictionaries(
    {
        "company_id": st.integers(-(2**31), 2**31 - 1),
        "symbol": st.sampled_from(["BHP", "RIO", ""]),
        "company_name": TEXT,
        "isin": TEXT,
        "start_date": DATE,
        "end_date": st.none() | DATE,
    }
)
FAR_MS = (2**63 - 1) // 1000
TIME_MS = st.integers(0, 2**41)
BHP = {"company_id": 7078, "symbol": "BHP", "company_name": "BHP BILLITON LTD", "isin": "AU000000BHP4", "start_date": "05/07/2008", "end_date": "03/31/2014"}
BHP_V2 = {
    "message_id": "m",
    "company_id": "7078",
    "symbol": "BHP",
    "exchange": "ASX",
    "asset_class": "equities",
    "company_name": "BHP GROUP",
    "is_active": True,
    "ingestion_timestamp": 9,
}


class Schemas:
    """A registry that knows SCHEMAS."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return SCHEMAS.get(schema_id)


def value_of(company: dict[str, Any], schema_id: int = 1) -> bytes:
    return frame(schema_id, body_of(SCHEMAS[schema_id], company))


def log_batch(values: list[bytes], times_ms: list[int], *, append_time_ms: int | None = None) -> LogBatch:
    raw = build_log_batch([Outgoing(b"7078", v, t) for v, t in zip(values, times_ms, strict=True)])
    if append_time_ms is not None:  # as a broker stamps it
        head = list(HEADER.unpack_from(raw))
        head[5], head[8] = head[5] | APPEND_TIME, append_time_ms
        raw = HEADER.pack(*head) + raw[HEADER.size :]
    return LogBatch.parse(TOPIC, 0, raw, 0)


def decoded(log: LogBatch, few: int) -> Decoded:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
        if few == 1:
            monkeypatch.setattr(decoder_module.RecordDecoder, "decode", lambda *_: pytest.fail("a record was read alone"))
        return Decoder("reference_data_v2", Schemas()).decode(Batch(TOPIC, 0, 0, log.last_offset + 1, (log,), 0))


def midnight_us(text: str) -> int:
    month, day, year = map(int, text.split("/"))
    midnight = datetime(year, month, day, tzinfo=ZoneInfo("Australia/Sydney"))
    offset = midnight.utcoffset()
    assert offset is not None
    return (midnight.replace(tzinfo=UTC) - EPOCH - offset) // timedelta(microseconds=1)


def expected(value: bytes, offset: int, time_ms: int) -> dict[str, Any]:
    """Record by record, as the docstring of k2stream.decode.v1 says, of what fastavro reads."""
    old = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(SCHEMAS[1]), None)
    assert isinstance(old, dict)
    return {
        "message_id": f"{TOPIC}/0/{offset}",
        "company_id": str(old["company_id"]),
        "symbol": old["symbol"],
        "exchange": "ASX",
        "asset_class": "equities",
        "company_name": old["company_name"],
        "isin": old["isin"],
        "currency": "AUD",
        "listing_date": midnight_us(old["start_date"]),
        "delisting_date": None,
        "is_active": True,
        "ingestion_timestamp": time_ms * 1000,
        "vendor_data": [] if old["end_date"] is None else [("end_date", old["end_date"])],
        "is_sample_data": False,
        "topic": TOPIC,
        "partition": 0,
        "offset": offset,
    }


def rows_of(found: Decoded) -> list[dict[str, Any]]:
    times = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in found.rows.schema]
    return found.rows.cast(pa.schema(times)).to_pylist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(COMPANY, TIME_MS), min_size=1, max_size=8), st.sampled_from([1, 1 << 40]), st.none() | TIME_MS)
def test_companies_become_what_the_oracle_says(said: list[tuple[dict[str, Any], int]], few: int, appended: int | None) -> None:
    """Every value exactly: the id as text, the first day from Sydney's midnight, the last one as it came, the log's time as that of ingestion."""
    values = [value_of(company) for company, _ in said]
    found = decoded(log_batch(values, [t for _, t in said], append_time_ms=appended), few)
    assert found.rejects == ()
    assert rows_of(found) == [expected(v, n, t if appended is None else appended) for n, (v, (_, t)) in enumerate(zip(values, said, strict=True))]


NO_MONTHS_DAY = ["02/30/2008", "02/29/2010", "13/01/2008", "00/01/2008", "05/07/0000", "01/01/0001"]
OTHER_FORMS = ["", "2008-05-07", "5/7/2008", "05/07/08", " 05/07/2008", "05/07/2008\n", "05/07/200\N{ARABIC-INDIC DIGIT EIGHT}"]


@pytest.mark.parametrize("few", [1, 1 << 40])
@pytest.mark.parametrize("text", [*NO_MONTHS_DAY, *OTHER_FORMS])
@pytest.mark.parametrize("name", ["start_date", "end_date"])
def test_a_date_that_cannot_be_read_is_a_letter_that_names_it(name: str, text: str, few: int) -> None:
    """A day that no month has, another order, another calendar's digits: refused by name, and its neighbours are rows."""
    good = value_of(BHP)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
        log = log_batch([good, value_of({**BHP, name: text}), good], [1, 2, 3])
        found = Decoder("reference_data_v2", Schemas()).decode(Batch(TOPIC, 0, 0, 3, (log,), 0))
    assert [(r.offset, r.reason) for r in found.rejects] == [(1, Reason.INVALID_DATE)]
    assert found.rejects[0].text == f"{name} must be a date as MM/DD/YYYY, found {text!r}."
    assert rows_of(found) == [expected(good, 0, 1), expected(good, 2, 3)]


def test_versions_one_and_two_lie_in_one_log_batch() -> None:
    """Rows come out in offset order, whichever version wrote them, and none is read alone."""
    found = decoded(log_batch([value_of(BHP), value_of(BHP_V2, 2)] * 60, list(range(120))), 1)
    assert found.rows["offset"].to_pylist() == list(range(120))
    assert found.rows["company_name"].to_pylist() == ["BHP BILLITON LTD", "BHP GROUP"] * 60
    assert [row["ingestion_timestamp"] for row in rows_of(found)] == [n * 1000 if n % 2 == 0 else 9 for n in range(120)]


@pytest.mark.parametrize("few", [1, 1 << 40])
@pytest.mark.parametrize("time_ms", [-1, 2**62, -(2**62), 2**63 - 1, FAR_MS, -FAR_MS])
def test_a_time_of_the_log_that_no_column_holds_ends_no_worker(time_ms: int, few: int) -> None:
    """A producer may stamp anything: the nearest time that there is."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_module, "FEW_RECORDS", few)
        log = log_batch([value_of(BHP)], [0])
        head = list(HEADER.unpack_from(log.raw))
        head[7] = head[8] = time_ms
        log = LogBatch.parse(TOPIC, 0, HEADER.pack(*head) + bytes(log.payload), 0)
        found = Decoder("reference_data_v2", Schemas()).decode(Batch(TOPIC, 0, 0, 1, (log,), 0))
    assert [row["ingestion_timestamp"] for row in rows_of(found)] == [max(-FAR_MS, min(FAR_MS, time_ms)) * 1000]


def test_companies_among_trades_are_letters() -> None:
    """Reference data in a topic of another kind stays refused."""
    log = log_batch([value_of(BHP)], [0])
    found = Decoder("trade_v2", Schemas()).decode(Batch(TOPIC, 0, 0, 1, (log,), 0))
    assert [r.reason for r in found.rejects] == [Reason.SCHEMA_INCOMPATIBLE]
