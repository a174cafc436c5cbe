"""Evolution while running, on a real broker and a real registry: three versions interleaved in one log batch, and an incompatible one."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2stream.audit import audit_lake
from k2stream.deadletter.kept import origins_of_letters
from k2stream.decode.framing import frame
from k2stream.decode.registry import HttpRegistry
from k2stream.dev.service import Service
from k2stream.errors import RegistryError
from k2stream.lake.reader import TableReader
from k2stream.playback import prepare_topics
from k2stream.rows import TRADES, AvroSchema, avro_schema
from k2stream.settings import Settings
from k2stream.transport.open import open_sink
from k2stream.transport.sink import Outgoing
from tests.consistency.harness import SMALL_WINDOWS, Site
from tests.properties.trade_records import TOPIC, a_trade, body_of
from tests.services.watching import START_SECONDS, nexts_of, until

pytestmark = [pytest.mark.kafka, pytest.mark.registry, pytest.mark.timeout(600)]

SUBJECT = "market.crypto.trades-value"
RECORDS = 400
PARTITIONS = 2
BATCHES = 4
INCOMPATIBLE = 3


def grown(*fields: Mapping[str, Any]) -> AvroSchema:
    """trade_v2 with more fields."""
    schema = deepcopy(avro_schema("trade_v2"))
    schema["fields"].extend(fields)
    return schema


FEE = {"name": "fee", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4}], "default": None}
TIER = {"name": "tier", "type": "int", "default": 0}
WIDE_TIER = {**TIER, "type": "long"}
VENUE = {"name": "venue", "type": {"type": "enum", "name": "Venue", "symbols": ["LIT", "DARK"]}, "default": "LIT"}
VERSIONS = [grown(), grown(FEE, TIER), grown(FEE, WIDE_TIER, VENUE)]
TEXT_PRICE = {**grown(), "fields": [{**f, "type": "string"} if f["name"] == "price" else f for f in grown()["fields"]]}


def trade_of(partition: int, n: int) -> dict[str, Any]:
    """One symbol a partition."""
    return a_trade(n, message_id=f"m{partition}-{n}", symbol=f"COIN{partition}USDT")


def added(version: int, n: int) -> dict[str, Any]:
    """Values of the fields that a version has beyond the first."""
    more: list[dict[str, Any]] = [{}, {"fee": Decimal(n).scaleb(-4) if n % 5 else None, "tier": n}]
    more.append({**more[1], "tier": n << 33, "venue": "DARK" if n % 7 else "LIT"})
    return more[version]


def version_of(batch: int, n: int) -> int:
    """The first log batch of a partition knows one version, the next two, then all, and the incompatible one among them."""
    return n % (batch + 1)


def value_of(partition: int, batch: int, n: int, ids: Sequence[int]) -> bytes:
    version = version_of(batch, n)
    if version == INCOMPATIBLE:
        schema, row = TEXT_PRICE, {**trade_of(partition, n), "price": "1.5"}
    else:
        schema, row = VERSIONS[version], {**trade_of(partition, n), **added(version, n)}
    return frame(ids[version], body_of(schema, row))


def publish(settings: Settings, ids: Sequence[int], batches: Sequence[int]) -> None:
    """One log batch of RECORDS records for each partition and number, now: the broker deletes what is a week old."""
    now_ms = time.time_ns() // 1_000_000

    async def send() -> None:
        sink = open_sink(settings)
        try:
            for batch in batches:
                for partition in range(PARTITIONS):
                    numbers = range(batch * RECORDS, (batch + 1) * RECORDS)
                    records = [Outgoing(b"COIN", value_of(partition, batch, n, ids), now_ms) for n in numbers]
                    assert await sink.send(TOPIC, partition, records) == batch * RECORDS
        finally:
            await sink.close()

    asyncio.run(send())


def register_unguarded(url: str, subject: str, schema: AvroSchema) -> int:
    """Past every check of ours, under a subject that allows anything."""
    for path, method, body in (
        (f"/config/{subject}", "PUT", {"compatibility": "NONE"}),
        (f"/subjects/{subject}/versions", "POST", {"schema": json.dumps(schema)}),
    ):
        request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request) as answer:
            said = json.loads(answer.read())
    return int(said["id"])


def rows_of(settings: Settings, table: str) -> pa.Table:
    with closing(TableReader.open_reader(settings, table)) as reader:
        return reader.load().scan().to_arrow()


def expected_rows() -> list[dict[str, Any]]:
    everything = []
    for partition in range(PARTITIONS):
        for n in range(BATCHES * RECORDS):
            version = version_of(n // RECORDS, n)
            if version != INCOMPATIBLE:
                row = {**trade_of(partition, n), "fee": None, "tier": None, "venue": None, **added(version, n)}
                everything.append({**row, "is_sample_data": False, "topic": TOPIC, "partition": partition, "offset": n})
    return everything


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Lists of pairs, decimals and integers as the expectation has them."""
    return {**row, "vendor_data": None if row["vendor_data"] is None else dict(row["vendor_data"])}


def test_three_versions_in_one_log_batch_and_an_incompatible_one(fresh_kafka: str, registry: Service, tmp_path: Path) -> None:
    """Writers evolve while workers run and are killed around the commit that brings a column: every row is there once with the values that
    its own writer gave it and null for what that did not know, the columns are exactly those, and what no contract reads is a letter."""
    environment = {**SMALL_WINDOWS, **registry.exports(), "K2_BROKER": f"k2kafka://{fresh_kafka}", "K2_PARTITIONS": str(PARTITIONS)}
    site = Site(tmp_path / "k2", environment)
    settings = Settings(home=site.home, broker=environment["K2_BROKER"], registry_url=environment["K2_REGISTRY_URL"], partitions=PARTITIONS)
    site.home.mkdir(mode=0o700)
    client = HttpRegistry(settings.registry_url)
    ids = [prepare_topics(settings, [TOPIC])[TOPIC], *(client.register(SUBJECT, version) for version in VERSIONS[1:])]
    with pytest.raises(RegistryError, match=r"TradeV2\.price was decimal\(18, 8\) and is string now"):
        client.register(SUBJECT, TEXT_PRICE)
    ids.append(register_unguarded(settings.registry_url, "elsewhere-value", TEXT_PRICE))

    publish(settings, ids, [0])
    with site.worker() as worker:
        until(lambda: set(nexts_of(worker, TOPIC).values()) == {RECORDS}, START_SECONDS)
        assert rows_of(settings, "trades").column_names == TRADES.names
        publish(settings, ids, [1])
        until(lambda: set(nexts_of(worker, TOPIC).values()) == {2 * RECORDS}, START_SECONDS)
        assert worker.stop() == 0, worker.last_lines(30)
    publish(settings, ids, range(2, BATCHES))
    site.run_until_killed("3.before")
    site.wipe_redis()
    site.run_until_killed("3.after")
    site.run_until_caught_up(START_SECONDS)

    found = rows_of(settings, "trades")
    assert found.column_names == [*TRADES.names, "fee", "tier", "venue"]
    assert [str(found.schema.field(name).type).removeprefix("large_") for name in ("fee", "tier", "venue")] == ["decimal128(12, 4)", "int64", "string"]
    for name in ("timestamp", "ingestion_timestamp"):
        found = found.set_column(found.column_names.index(name), name, found[name].cast(pa.int64()))
    ordered = found.take(pc.sort_indices(found, [("partition", "ascending"), ("offset", "ascending")]))
    assert [plain(row) for row in ordered.to_pylist()] == expected_rows()

    letters = rows_of(settings, "dead_letters")
    wanted = sorted(f"{TOPIC}/{p}/{n}" for p in range(PARTITIONS) for n in range(3 * RECORDS, 4 * RECORDS) if version_of(3, n) == INCOMPATIBLE)
    assert sorted(letters["origin"].to_pylist()) == wanted
    assert set(letters["reason"].to_pylist()) == {"schema_incompatible"}
    assert all("field price" in text for text in letters["text"].to_pylist())
    assert audit_lake(settings, letters=lambda: origins_of_letters(settings)).problems == ()
