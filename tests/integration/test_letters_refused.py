"""Letters that a log will not take as they are: no record may stop a worker for ever."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest

from k2stream.deadletter.envelope import decode_letter, encode_letter, letter_of
from k2stream.deadletter.letters import LetterBox
from k2stream.deadletter.topics import make_letter_topics
from k2stream.errors import LogRefused, TransportError
from k2stream.settings import Settings
from k2stream.testing import trade_rows
from k2stream.topics import KEPT_30_DAYS, LETTER_TOPICS
from k2stream.transport.open import open_sink
from k2stream.transport.reader import read_topics
from k2stream.transport.sink import LogSink, Outgoing, TopicState
from k2stream.validate import Limits, validate
from k2stream.verdict import Reason, Reject

TOPIC, LETTERS = "market.equities.trades.asx", "dlq.equities.trades"
OLD = {"cleanup.policy": "delete", "retention.ms": "86400000"}


@dataclass
class SinkThatRefusesLarge:
    """A real log behind a bound: as a broker it refuses a log batch whose values are larger, and changes of topics if told so."""

    sink: LogSink
    most_bytes: int = 1 << 62
    refuses_changes: bool = False
    sent: list[int] = field(default_factory=list)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        if sum(len(r.value or b"") for r in records) > self.most_bytes:
            raise LogRefused("too large")
        self.sent.append(len(records))
        return await self.sink.send(topic, partition, records)

    async def configure(self, topic: str, config: Mapping[str, str]) -> None:
        if self.refuses_changes:
            raise TransportError("not allowed")
        await self.sink.configure(topic, config)

    async def create_topic(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        await self.sink.create_topic(topic, partitions, config)

    async def partitions(self, topic: str) -> int:
        return await self.sink.partitions(topic)

    async def describe_topics(self) -> Mapping[str, TopicState]:
        return await self.sink.describe_topics()


def reject(offset: int, value: bytes, **changed: object) -> Reject:
    made = Reject(TOPIC, offset % 3, offset, 5, b"BHP", value, (), Reason.BAD_MAGIC, "no frame", None)
    return replace(made, **changed)  # type: ignore[arg-type] # fields by name


def published(tmp_path: Path, rejects: Sequence[Reject], *, most_bytes: int) -> tuple[Settings, SinkThatRefusesLarge]:
    settings = Settings(home=tmp_path / "k2", fsync=False, partitions=4)
    behind = SinkThatRefusesLarge(open_sink(settings), most_bytes)

    async def publish() -> None:
        await LetterBox(behind, settings).publish(rejects)  # type: ignore[arg-type] # all that a letter box asks for
        await behind.sink.close()

    asyncio.run(publish())
    return settings, behind


def test_a_letter_too_large_for_its_topic_goes_without_its_bytes(tmp_path: Path) -> None:
    """Its neighbours go whole, it says how large the record was, and its key is there, so the audit adds up."""
    rejects = [reject(3, b"small"), reject(6, b"x" * 4_000), reject(9, b"small too"), reject(4, b"elsewhere")]
    settings, _ = published(tmp_path, rejects, most_bytes=2_000)
    found = {record.key: record.value or b"" for record in read_topics(settings, [LETTERS])}
    assert found.keys() == {letter_of(r).origin.encode() for r in rejects}
    assert {decode_letter(v).offset: decode_letter(v).value for v in found.values()} == {3: b"small", 6: None, 9: b"small too", 4: b"elsewhere"}
    assert orjson.loads(found[b"market.equities.trades.asx/0/6"])["value_bytes"] == 4_000


def test_a_letter_refused_even_without_its_bytes_is_no_trouble_that_passes(tmp_path: Path) -> None:
    """It is not asked again for ever: three strikes, then the worker says so."""
    with pytest.raises(LogRefused) as raised:
        published(tmp_path, [reject(1, b"x")], most_bytes=10)
    assert not raised.value.is_retriable


def test_letters_of_a_flood_are_few_log_batches(tmp_path: Path) -> None:
    """Of one partition together, 500 at most, however many there are."""
    settings, behind = published(tmp_path, [reject(n, b"bad") for n in range(3_000)], most_bytes=1 << 62)
    assert sorted(behind.sent) == [500] * 6
    assert len({record.key for record in read_topics(settings, [LETTERS])}) == 3_000


@pytest.mark.parametrize("refuses_changes", [False, True])
def test_letter_topics_of_an_older_version_take_large_letters(tmp_path: Path, refuses_changes: bool) -> None:
    """Made before, they get what they lack and keep what somebody set; a log that allows no change is used as it is."""

    async def made() -> Mapping[str, TopicState]:
        settings = Settings(home=tmp_path / "k2", fsync=False, partitions=4)
        sink = open_sink(settings)
        await sink.create_topic(LETTERS, 2, OLD)
        await make_letter_topics(SinkThatRefusesLarge(sink, refuses_changes=refuses_changes), settings, LETTER_TOPICS)  # type: ignore[arg-type] # all it asks for
        found = await sink.describe_topics()
        await sink.close()
        return found

    found = asyncio.run(made())
    needed = {name: KEPT_30_DAYS[name] for name in ("max.message.bytes", "message.timestamp.type")}
    assert found[LETTERS] == TopicState(2, OLD if refuses_changes else OLD | needed)
    as_declared = TopicState(4, {**KEPT_30_DAYS, "compression.type": "lz4"})
    assert all(found[topic] == as_declared for topic in LETTER_TOPICS if topic != LETTERS)


DECLARED = """
data_types:
  dead_letters:
    key: origin
    config:
      retention.ms: 7200000
topics:
  dlq.equities.trades:
    partitions: 2
    config:
      retention.ms: 3600000
  dlq.crypto.trades:
"""


def letter_topics(tmp_path: Path, declared: str, **given: int) -> Mapping[str, TopicState]:
    """What a start makes of letter topics."""
    file = tmp_path / "topics.yaml"
    file.write_text(declared, encoding="utf-8")
    settings = Settings(home=tmp_path / "k2", fsync=False, topics_file=str(file), **given)

    async def made() -> Mapping[str, TopicState]:
        sink = open_sink(settings)
        await make_letter_topics(sink, settings, LETTER_TOPICS)
        found = await sink.describe_topics()
        await sink.close()
        return found

    return asyncio.run(made())


def test_letter_topics_are_made_as_they_are_declared(tmp_path: Path) -> None:
    """Number and retention are the file's, of one that it does not name its data type's; what letters need is there all the same."""
    found = letter_topics(tmp_path, DECLARED)
    assert found[LETTERS] == TopicState(2, {**KEPT_30_DAYS, "retention.ms": "3600000"})
    hours = {**KEPT_30_DAYS, "retention.ms": "7200000"}
    assert {topic: state for topic, state in found.items() if topic != LETTERS} == {t: TopicState(8, hours) for t in LETTER_TOPICS if t != LETTERS}


def test_partitions_set_by_hand_are_those_of_letter_topics_too(tmp_path: Path) -> None:
    """As of every topic that a writer makes."""
    found = letter_topics(tmp_path, DECLARED, partitions=5)
    assert {state.partitions for state in found.values()} == {5}


def test_a_file_that_cannot_be_read_keeps_no_letter_from_its_topic(tmp_path: Path) -> None:
    """A worker with a broken topics.yaml still has somewhere to put what is bad."""
    found = letter_topics(tmp_path, "topics: [")
    assert found == {topic: TopicState(8, KEPT_30_DAYS) for topic in LETTER_TOPICS}


def test_a_huge_word_does_not_make_its_sentence_huge() -> None:
    """A sentence names the start of what was found: the letter has the record whole."""
    rows = trade_rows([{"exchange": "X" * 700_000}])
    (invalid,) = validate(rows, exchange="asx", asset_class="equities", now_us=1 << 60, limits=Limits(1 << 40, 0))
    assert invalid.text.startswith("exchange must be asx as its topic says, found 'XXX")
    assert len(invalid.text) < 300
    assert len(encode_letter(letter_of(reject(1, b"", text="y" * 700_000)))) < 3_000


@pytest.mark.kafka
def test_kafka_refuses_a_large_record_for_good_and_takes_its_letter(kafka: str, tmp_path: Path) -> None:
    """A record of 1 MB that does not compress and a time from the future: refused where topics say nothing, taken by letter topics."""
    name, value = f"plain-{tmp_path.name}", random.Random(1).randbytes(1_040_000)

    async def sent() -> None:
        settings = Settings(home=tmp_path / "k2", broker=f"k2kafka://{kafka}", partitions=4)
        sink = open_sink(settings)
        try:
            await sink.create_topic(name, 1, {"max.message.bytes": "1048588", "message.timestamp.type": "CreateTime"})
            with pytest.raises(LogRefused):
                await sink.send(name, 0, [Outgoing(b"k", encode_letter(letter_of(reject(1, value))), 5)])
            await make_letter_topics(sink, settings, LETTER_TOPICS)
            box = LetterBox(sink, settings)
            await box.publish([reject(1, value, timestamp_ms=1 << 44), reject(2, b"x")])
        finally:
            await sink.close()

    asyncio.run(sent())
