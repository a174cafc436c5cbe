"""The REST service: exact answers, the same rows for the same receipt, and one sentence for whatever cannot be answered."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from k2stream.api.server import AT_ONCE, PAGES, Desk, application
from k2stream.lake.reader import TableReader
from k2stream.settings import Settings
from tests.integration.lake_site import LakeSite, soon, window

KEY = "a key that nobody guesses"


@asynccontextmanager
async def asked(site: LakeSite) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(application(site.settings))) as client:
        yield client


@pytest.fixture
def site(tmp_path: Path) -> LakeSite:
    """A table of two windows."""
    site = LakeSite(tmp_path, web_key=KEY)
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 4)), soon())
    worker.commit(worker.write(window(2, 4, 8, symbol="CBA")), soon())
    return site


async def get(client: TestClient[Any, Any], path: str, **query: str) -> ClientResponse:
    return await client.get(path, params=query, headers={"X-API-Key": KEY})


async def test_a_receipt_handed_back_gives_the_same_rows(site: LakeSite) -> None:
    """Although the table went on meanwhile; prices keep every digit."""
    async with asked(site) as client:
        first = await (await get(client, "/v1/trades", symbol="CBA")).json()
        worker = site.worker()
        worker.commit(worker.write(window(3, 8, 12, symbol="CBA")), soon())
        again = await (await get(client, "/v1/trades", symbol="CBA", snapshot=str(first["receipt"]["snapshot_id"]))).json()
        newest = await (await get(client, "/v1/trades", symbol="CBA")).json()
    assert first == again
    assert (len(first["rows"]), len(newest["rows"])) == (4, 8)
    assert all(row["symbol"] == "CBA" and Decimal(row["price"]) for row in first["rows"])


async def test_bars_are_of_the_symbol_asked_for(site: LakeSite) -> None:
    """And of nothing else; a symbol that never traded has none."""
    async with asked(site) as client:
        bars = await (await get(client, "/v1/bars/daily", symbol="CBA")).json()
        none = await (await get(client, "/v1/bars/daily", symbol="NONE")).json()
        csv = await get(client, "/v1/bars/daily", symbol="CBA", format="csv")
        lines = (await csv.text()).splitlines()
    assert [(bar["symbol"], bar["trades"]) for bar in bars["rows"]] == [("CBA", 4)]
    assert {"missing", "is_complete"} <= set(bars["rows"][0])
    assert none["rows"] == []
    assert lines[0].startswith("day,exchange,symbol,trades,open")
    assert len(lines) == 2
    assert "snapshot_id" in csv.headers["X-K2-Receipt"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"limit": "0"}, "limit=0: expected a number from 1 to 10000"),
        ({"limit": "many"}, "limit=many"),
        ({"start": "noon"}, "start noon: expected an ISO 8601 time"),
        ({"snapshot": "last"}, "snapshot=last: expected the snapshot_id of a receipt"),
        ({"sql": "DROP TABLE trades"}, "sql: no such parameter"),
        ({"format": "xml"}, "format=xml: expected json or csv"),
    ],
)
async def test_what_cannot_be_asked_is_named(site: LakeSite, query: dict[str, str], words: str) -> None:
    """400 with the parameter, what was expected and what was found."""
    async with asked(site) as client:
        answer = await get(client, "/v1/trades", **query)
        assert answer.status == 400
        assert words in (await answer.json())["error"]


async def test_a_hostile_symbol_is_only_a_symbol(site: LakeSite) -> None:
    """Values are bound, never part of the SQL."""
    async with asked(site) as client:
        answer = await get(client, "/v1/trades", symbol="CBA' OR '1'='1")
        assert (answer.status, (await answer.json())["rows"]) == (200, [])


@pytest.mark.parametrize("page", ["/v1/trades", "/v1/bars/daily"])
async def test_an_exchange_is_asked_for_in_any_case(site: LakeSite, page: str) -> None:
    """And one that no row has is said beside the empty answer, whatever it is called: a script that expects none goes on."""
    async with asked(site) as client:
        upper, lower = [await (await get(client, page, exchange=name)).json() for name in ("ASX", "asx")]
        nobody, csv = await get(client, page, exchange="NOPE\r\nX: y"), await get(client, page, exchange="NOPE\r\nX: y", format="csv")
        symbol = await (await get(client, page, symbol="cba")).json()
        assert upper == lower
        assert upper["rows"]
        assert "note" not in upper
        assert (nobody.status, (await nobody.json())["rows"], csv.status, "X" in csv.headers) == (200, [], 200, False)
        assert (await nobody.json())["note"] == json.loads(csv.headers["X-K2-Note"]) == "No row is of exchange 'NOPE\\r\\nX: y': there is ASX."
        assert symbol["note"] == "No row is of symbol 'cba': there is CBA."


async def test_without_the_key_nothing_is_told(site: LakeSite) -> None:
    """But that the service lives."""
    async with asked(site) as client:
        assert {path: (await client.get(path)).status for path in PAGES} == dict.fromkeys(PAGES, 401) | {"/healthz": 200, "/livez": 200}


async def test_a_service_before_its_tables_says_so_and_recovers(tmp_path: Path) -> None:
    """503 with the cause; once a worker made them it answers by itself. A snapshot that is gone is said to be so."""
    site = LakeSite(tmp_path, web_key=KEY)
    async with asked(site) as client:
        before = await get(client, "/v1/trades")
        assert (before.status, (await client.get("/healthz")).status) == (503, 503)
        worker = site.started()
        worker.commit(worker.write(window(1, 0, 4)), soon())
        after, gone = await get(client, "/v1/trades"), await get(client, "/v1/trades", snapshot="12345")
        assert (after.status, len((await after.json())["rows"])) == (200, 4)
        assert gone.status == 503
        assert "12345" in (await gone.json())["error"]


def lose_files(site: LakeSite) -> None:
    for path in site.files():
        if path.suffix == ".parquet":
            Path(path).unlink()


async def test_a_data_file_that_is_away_is_no_fault_of_the_question(site: LakeSite) -> None:
    """503 and a line in the log for what upkeep removed or S3 does not give; who asks again may be answered."""
    lose_files(site)
    with structlog.testing.capture_logs() as logged:
        async with asked(site) as client:
            found = [await get(client, page) for page in ("/v1/trades", "/v1/bars/daily")]
            words = [(await answer.json())["error"] for answer in found]
    assert [answer.status for answer in found] == [503, 503]
    assert all(".parquet" in each for each in words)
    assert [(line["event"], line["log_level"], line["path"]) for line in logged] == [
        ("api.no_answer", "warning", "/v1/trades"),
        ("api.no_answer", "warning", "/v1/bars/daily"),
    ]


async def test_questions_at_once_open_the_tables_once(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second reader would be forgotten, and its connections never given back."""
    opened: list[TableReader] = []
    another, whole = threading.Barrier(2), TableReader.open_reader

    def slow(settings: Settings, name: str) -> TableReader:
        with suppress(threading.BrokenBarrierError):
            another.wait(1)  # for whoever opens beside this one
        opened.append(whole(settings, name))
        return opened[-1]

    monkeypatch.setattr(TableReader, "open_reader", slow)
    desk = Desk(site.settings)
    await asyncio.gather(*(desk.ping() for _ in range(AT_ONCE)))
    desk.close()
    for reader in opened[1:]:
        reader.close()
    assert len(opened) == 1
