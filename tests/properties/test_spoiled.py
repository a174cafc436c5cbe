"""What a topic of bad records costs: calls of the block reader, which is the dear part of looking for the good ones."""

from collections.abc import Sequence

import pytest

from k2stream.decode import decoder as decoder_module
from k2stream.decode.block import Block, BlockReader
from k2stream.decode.decoder import Decoder
from tests.properties.test_decode import Schemas, value_of
from tests.properties.trade_records import a_trade, batch_of, log_batch

RECORDS, LOG_BATCHES = 100, 8


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many log batches each call of the block reader was given."""
    seen: list[int] = []
    read = BlockReader.read

    def counted(self: BlockReader, blocks: Sequence[Block]) -> object:
        seen.append(len(blocks))
        return read(self, blocks)

    monkeypatch.setattr(decoder_module.BlockReader, "read", counted)
    return seen


def fetch(bad: set[int], base: int) -> tuple[object, list[int]]:
    """Log batches of which those in `bad` hold one bad record each, and the offsets that are no rows."""
    log_batches, spoiled = [], []
    for number in range(LOG_BATCHES):
        values = [value_of(a_trade(n)) for n in range(RECORDS)]
        first = base + number * RECORDS
        if number in bad:
            values[7] = values[7][:-3]
            spoiled.append(first + 7)
        log_batches.append(log_batch(values, first, from_offset=first))
    return batch_of(*log_batches), spoiled


def test_a_spoiled_partition_costs_one_call_more_and_only_the_first_time(calls: list[int]) -> None:
    """All log batches of a fetch hold a bad record: one read fails, one reads the rest. The next fetches are taken apart before any read."""
    decoder, every = Decoder("trade_v2", Schemas()), set(range(LOG_BATCHES))
    costs = []
    for turn, bad in enumerate((every, every, set[int](), set[int]())):
        batch, spoiled = fetch(bad, turn * LOG_BATCHES * RECORDS)
        found = decoder.decode(batch)  # type: ignore[arg-type] # a Batch
        assert [r.offset for r in found.rejects] == spoiled
        assert found.rows.num_rows == LOG_BATCHES * RECORDS - len(spoiled)
        costs.append(list(calls))
        calls.clear()
    assert costs == [[LOG_BATCHES] * 2, [LOG_BATCHES], [LOG_BATCHES], [LOG_BATCHES]]
