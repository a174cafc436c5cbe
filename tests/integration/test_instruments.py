"""Reference data from its topic to table and look-up: updates, ends, deaths in between, and rows of symbols that nobody declared."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import UUID

import pytest

from k2stream.decode.framing import FRAME_BYTES, frame
from k2stream.decode.registry import open_registry
from k2stream.feed import asx
from k2stream.feed.avro import encode_one
from k2stream.feed.recording import MessageIds
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics, publish_recorded
from k2stream.query.engine import Engine
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from k2stream.worker_process import WorkerProcess
from tests.properties.trade_records import body_of
from tests.services.start_site import k2, until

ROOT = Path(__file__).parents[2]
TOPIC = "market.equities.reference_data.asx"
RIO, BHP, DVN, MWR = "7458", "7078", "7181", "3153"
AT_MS = 1_700_000_000_000
"""When the records of these tests were published."""

pytestmark = pytest.mark.timeout(600)  # three workers one after the other


@contextmanager
def worker(home: Path, **environment: str) -> Iterator[WorkerProcess]:
    with WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment={"K2_WINDOW_MS": "200", **environment}) as w:
        yield w


FEE = {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}, "default": "\u0000"}
LOT = {"name": "lot", "type": "long", "default": 1}
TEXT_ACTIVE = {"name": "is_active", "type": "string", "default": "yes"}
TEXT_FEE = {"name": "fee", "type": "string", "default": ""}


class Versions:
    """Records of shipped companies as writers of three versions of the schema say them; register the versions first."""

    def __init__(self, home: Path) -> None:
        plain, registry = avro_schema("reference_data_v2"), open_registry(Settings(home=home))
        more = [{**plain, "fields": [*plain["fields"], *[FEE, LOT][:version]]} for version in range(3)]
        self.ids = [registry.register("market.equities.reference_data-value", schema) for schema in more]
        other = {**plain, "fields": [*(f for f in plain["fields"] if f["name"] != "is_active"), TEXT_ACTIVE]}
        self.refused = frame(registry.register("other-value", other), b"")
        """A record whose schema the contract cannot read."""
        self.unfit = frame(registry.register("unfit-value", {**plain, "fields": [*plain["fields"], TEXT_FEE]}), b"")
        """A record whose schema the contract can read, but not a table with the column of the others."""

    def __call__(self, version: int, company: str, **said: Any) -> tuple[str, bytes]:
        behind = [FEE, LOT][:version]
        body = of_today(company, 0, {k: v for k, v in said.items() if k not in ("fee", "lot")})[FRAME_BYTES:]
        return company, frame(self.ids[version], body + body_of({"type": "record", "name": "Behind", "fields": behind}, said))


def looked_up(w: WorkerProcess, symbol: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.port}/instruments?exchange=ASX&symbol={symbol}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except (HTTPError, OSError):
        return {}
    return found


def rows_of(home: Path, name: str) -> list[dict[str, Any]]:
    with closing(TableReader.open_reader(Settings(home=home), name)) as reader, Engine() as engine:
        files = reader.newest_files()
        asked = "SELECT * FROM read_parquet($files, hive_partitioning = false, union_by_name = true)"
        return engine.ask(asked, files=files).to_pylist() if files else []


def letters(home: Path) -> list[tuple[int, str, str]]:
    """Offset, reason and text of each dead letter in its table."""
    return sorted((r["offset"], r["reason"], r["text"]) for r in rows_of(home, "dead_letters"))


def table(home: Path) -> dict[str, dict[str, Any]]:
    """Rows by company; one that stands twice fails."""
    rows = rows_of(home, "instruments")
    assert len({r["company_id"] for r in rows}) == len(rows)
    return {r["company_id"]: r for r in rows}


def say(home: Path, *records: tuple[str, Mapping[str, Any] | None]) -> None:
    """Publish records of companies (None: the end) to the topic, which exists."""
    schema_id = prepare_topics(Settings(home=home), [TOPIC])[TOPIC]
    for company, changed in records:
        publish(home, (company, None if changed is None else of_today(company, schema_id, changed)))


def of_today(company: str, schema_id: int, changed: Mapping[str, Any]) -> bytes:
    """A record of a shipped company, with some values changed."""
    known = {r["company_id"]: r for r in asx.instruments(ids=MessageIds(UUID(int=5)), now_us=1).rows.to_pylist()}
    return encode_one({**known[company], **changed}, schema="reference_data_v2", schema_id=schema_id)


def publish(home: Path, *values: tuple[str, bytes | None]) -> None:
    """Values by company to the topic, in one log batch."""

    async def send() -> None:
        sink = open_sink(Settings(home=home))
        await sink.send(TOPIC, 0, [Outgoing(company.encode(), value, AT_MS) for company, value in values])
        await sink.close()

    asyncio.run(send())


def taken(w: WorkerProcess) -> int:
    return sum(p["next"] for p in (w.state() or {}).get("reference_data", {}).get("partitions", ()))


def assert_audited(home: Path) -> None:
    done = k2(home, "audit", "--json", environment={})
    assert done.returncode == 0, done.stdout


def test_four_instruments_an_update_and_an_end_are_seen_in_table_and_look_up(tmp_path: Path) -> None:
    """The newest record wins; a record without a value ends the listing and leaves the row, in both."""
    publish_recorded(Settings(home=tmp_path), "instruments")
    with worker(tmp_path) as w:
        until(w, lambda: looked_up(w, "RIO").get("company_name") == "RIO TINTO LTD", "in the look-up")
        assert set(table(tmp_path)) == {"3153", BHP, "7181", RIO}
        say(tmp_path, (BHP, {"company_name": "BHP GROUP"}), (RIO, None))
        until(w, lambda: looked_up(w, "BHP")["company_name"] == "BHP GROUP" and looked_up(w, "RIO")["delisted_at"], "update and end in the look-up")
        rows = table(tmp_path)
        assert rows[BHP]["company_name"] == "BHP GROUP"
        assert (rows[RIO]["symbol"], rows[RIO]["is_active"], rows[RIO]["delisted_at"].timestamp()) == ("RIO", False, AT_MS / 1000)
        assert looked_up(w, "NONE") == {}
        assert (w.state() or {})["reference_data"]["since_start"]["dead_letters"] == 0
    assert_audited(tmp_path)
    with worker(tmp_path) as w:
        until(w, lambda: looked_up(w, "RIO").get("is_active") is False, "a new worker knows them from the changelog or the table")


def test_records_of_version_one_are_the_newest_where_they_come_last(tmp_path: Path) -> None:
    """Versions 1 and 2 in one log batch: the last of each company is its row in table and look-up, and a date that is none a letter."""
    today = prepare_topics(Settings(home=tmp_path), [TOPIC])[TOPIC]
    first = open_registry(Settings(home=tmp_path)).register(f"{TOPIC}-value", avro_schema("reference_data_v1"))

    def of_old(company: str, **changed: str | None) -> tuple[str, bytes]:
        old = {"symbol": "?", "company_name": "OLD", "isin": "AU", "start_date": "05/07/2008", "end_date": None, **changed}
        return company, frame(first, body_of(avro_schema("reference_data_v1"), {**old, "company_id": int(company)}))

    new_of = {company: (company, of_today(company, today, {"company_name": "NEW"})) for company in (BHP, RIO, DVN)}
    old_rio = of_old(RIO, symbol="RIO", company_name="RIO OLD", end_date="03/31/2014")
    publish(tmp_path, of_old(BHP), new_of[RIO], new_of[DVN], of_old(DVN, start_date="02/30/2008"), new_of[BHP], old_rio)
    with worker(tmp_path) as w:
        until(w, lambda: looked_up(w, "RIO").get("company_name") == "RIO OLD", "in the look-up")
        found = looked_up(w, "RIO")
        assert (found["listing_date"], found["delisting_date"], found["is_active"]) == ("2008-05-06T14:00:00+00:00", None, True)
        assert (found["vendor_data"], found["currency"], found["isin"]) == ({"end_date": "03/31/2014"}, "AUD", "AU")
        assert [looked_up(w, symbol)["company_name"] for symbol in ("BHP", "DVN")] == ["NEW", "NEW"]
        assert (w.state() or {})["reference_data"]["since_start"]["dead_letters"] == 1
    rows = table(tmp_path)
    assert {company: row["company_name"] for company, row in rows.items()} == {BHP: "NEW", DVN: "NEW", RIO: "RIO OLD"}
    assert (rows[RIO]["message_id"], rows[RIO]["ingestion_timestamp"].timestamp()) == (f"{TOPIC}/0/5", AT_MS / 1000)
    assert letters(tmp_path) == [(3, "invalid_date", "start_date must be a date as MM/DD/YYYY, found '02/30/2008'.")]


def test_a_worker_killed_behind_its_commit_loses_and_doubles_no_change(tmp_path: Path) -> None:
    """Writers of three versions, and two that are refused; the commit that brings their columns is the one that the worker dies behind: the next
    worker ends with the newest of each in table and look-up, null for what its writer did not know, and the ledger adds up; test_replace.py and
    test_replace_columns.py die at the other steps."""
    publish_recorded(Settings(home=tmp_path), "instruments")
    of = Versions(tmp_path)
    with worker(tmp_path) as w:
        until(w, lambda: taken(w) == 4, "all four taken")
    changes = [of(2, BHP, company_name="BHP GROUP", fee=Decimal("0.125"), lot=1 << 40), of(2, RIO, fee=Decimal(2), lot=7), (RIO, None)]
    publish(tmp_path, *changes, (BHP, of.refused), of(1, DVN, symbol="DVX", fee=Decimal("0.001")))
    with worker(tmp_path, K2_CRASH_AT="3.after") as w:
        assert w.wait(300) != 0
    publish(tmp_path, (BHP, of.unfit), of(1, BHP, company_name="BHP", fee=Decimal(3)))
    with worker(tmp_path) as w:
        until(w, lambda: taken(w) == 11 and looked_up(w, "DVX") and not looked_up(w, "DVN") and looked_up(w, "RIO").get("delisted_at"), "all changes in both")
        until(w, lambda: looked_up(w, "BHP")["company_name"] == "BHP", "the newest in the look-up")
        found = [looked_up(w, symbol) for symbol in ("BHP", "RIO", "DVX", "MWR")]
    said = {
        BHP: ("BHP", Decimal(3), None, True),
        RIO: ("RIO", Decimal(2), 7, False),
        DVN: ("DVX", Decimal("0.001"), None, True),
        MWR: ("MWR", None, None, True),
    }
    rows = table(tmp_path)
    assert {company: (r["symbol"], r["fee"], r["lot"], r["is_active"]) for company, r in rows.items()} == said
    texts = [(symbol, fee and f"{fee:.3f}", lot, is_active) for symbol, fee, lot, is_active in said.values()]
    assert [(r["symbol"], r["fee"], r["lot"], r["is_active"]) for r in found] == texts
    assert_audited(tmp_path)
    assert [(offset, reason) for offset, reason, _ in letters(tmp_path)] == [(7, "schema_incompatible"), (9, "schema_incompatible")]
    assert [name in text for name, (_, _, text) in zip(("field is_active", "field fee"), letters(tmp_path), strict=True)] == [True, True]


def test_symbols_without_an_instrument_are_counted_and_kept(tmp_path: Path) -> None:
    """A warning for each symbol, never an error: the trades of a symbol that is not declared are rows like all others."""
    settings = Settings(home=tmp_path)
    publish_recorded(settings, "trades", rows=300)
    say(tmp_path, (BHP, {}))
    with worker(tmp_path) as w:
        until(w, lambda: (w.state() or {}).get("unknown_instruments"), "counted")
        unknown = (w.state() or {})["unknown_instruments"]
        assert all(key.startswith("trades ASX/") for key in unknown), "Binance has no topic of reference data"
        assert "trades ASX/BHP" not in unknown
        assert (w.state() or {})["trades"]["since_start"]["dead_letters"] == 0
        with urllib.request.urlopen(f"http://127.0.0.1:{w.port}/metrics", timeout=10) as answer:
            assert 'k2_unknown_instrument_rows_total{data_type="trades"}' in answer.read().decode()
