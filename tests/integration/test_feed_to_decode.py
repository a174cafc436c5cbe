"""What the feed publishes is what decode and validate read: every row, every marker, every spoiled record for its reason."""

from collections import Counter
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from k2stream.decode.decoder import Decoder
from k2stream.feed import recorded
from k2stream.feed.faults import inject
from k2stream.feed.recording import MessageIds
from k2stream.records import Batch, TopicPartition
from k2stream.rows import AvroSchema, avro_schema
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.validate import Limits, validate

SCHEMA_ID = 3
COMPARED = ("message_id", "trade_id", "symbol", "timestamp", "price", "quantity", "side", "source_sequence", "vendor_data")


class OneSchema:
    """A registry that knows trade_v2 under one id."""

    def schema(self, schema_id: int) -> AvroSchema | None:
        return avro_schema("trade_v2") if schema_id == SCHEMA_ID else None


def read(folder: Path, topic: str) -> list[Batch]:
    log = EmbeddedLog(folder)
    batches = [log.read(TopicPartition(topic, p), 0, 1 << 30) for p in range(2)]
    log.close()
    return [Batch(topic, p, 0, b[-1].last_offset + 1, tuple(b), 0) for p, b in enumerate(batches) if b]


async def test_published_trades_with_faults_are_read_as_they_were_meant(tmp_path: Path) -> None:
    """8,000 ticks through the log: rows equal those planned, letters by reason equal those injected, all session markers there."""
    recordings = recorded.trades(ids=MessageIds(UUID(int=1)), now_us=1_700_000_000_000_000, rows=8_000)
    schema_ids = {r.topic: SCHEMA_ID for r in recordings}
    scripts, injected = inject(recordings, seed=1, schema_ids=schema_ids, ids=MessageIds(UUID(int=2)))
    sink = EmbeddedSink(tmp_path)
    for recording in recordings:
        await sink.create_topic(recording.topic, 2, {})
    published = await recorded.play(sink, scripts, schema_ids=schema_ids)
    await sink.close()
    rows, letters, markers = [], Counter[str](), 0
    for script in scripts:
        topic = script.recording.topic
        for decoded in Decoder("trade_v2", OneSchema()).decode_many(read(tmp_path, topic)):
            letters.update(r.reason for r in decoded.rejects)
            markers += len(decoded.markers)
            _, asset_class, _, exchange = topic.split(".")
            invalid = validate(decoded.rows, exchange=exchange, asset_class=asset_class, now_us=1_700_000_000_000_000, limits=Limits(3_600_000_000, 0))
            letters.update(i.reason for i in invalid)
            bad = {i.row for i in invalid}
            rows += [r for n, r in enumerate(decoded.rows.to_pylist()) if n not in bad]
    assert letters == Counter(injected.dead_letters)
    assert markers == sum(p.markers for p in published)
    assert len(rows) == injected.rows + injected.duplicates
    first = {r["trade_id"]: {name: r[name] for name in COMPARED} for r in reversed(rows)}
    planned = pa.concat_tables([s.recording.rows.select(COMPARED).cast(pa.schema(scripts[0].recording.rows.select(COMPARED).schema)) for s in scripts])
    expected = {r["trade_id"]: r for r in planned.to_pylist() if r["trade_id"] not in injected.spoiled}
    assert first == expected
