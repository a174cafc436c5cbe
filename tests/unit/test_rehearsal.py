"""A rehearsal judges a letter as a worker would, of whichever topic it is."""

from pathlib import Path

import numpy as np
import pytest

from k2stream.deadletter.envelope import letter_of
from k2stream.deadletter.rehearsal import rehearse
from k2stream.deadletter.trail import Outcome
from k2stream.decode.decoder import Decoder
from k2stream.decode.registry import open_registry
from k2stream.feed.avro import encode_one
from k2stream.home import Home
from k2stream.rows import avro_schema, body_schema
from k2stream.settings import Settings
from k2stream.testing import trade_rows
from k2stream.topics import TopicName
from k2stream.validate import Limits
from k2stream.verdict import Reason, Reject

LIMITS = Limits(max_ahead_us=60_000_000, max_age_us=0)


@pytest.mark.parametrize(
    ("topic", "exchange"),
    [("market.crypto.trades.binance", "BINANCE"), ("market.crypto.trades.binance-b", "BINANCE"), ("market.equities.trades.asx", "ASX")],
)
@pytest.mark.parametrize("is_of_venue", [True, False])
def test_a_letter_of_a_redundant_topic_is_of_its_venue(tmp_path: Path, topic: str, exchange: str, is_of_venue: bool) -> None:
    """The feed's name behind the exchange is no part of what rows say; another venue's rows stay letters."""
    settings, name = Settings(home=tmp_path / "k2"), TopicName.parse(topic)
    Home.open(settings.home)
    registry = open_registry(settings)
    schema_id = registry.register(name.subject, avro_schema("trade_v2"))
    of_rows = {"exchange": exchange if is_of_venue else "KRAKEN", "asset_class": name.asset_class, "currency": "USD"}
    row = trade_rows([of_rows]).select(body_schema("trade_v2").names).to_pylist()[0]
    value = encode_one(row, schema="trade_v2", schema_id=schema_id)
    letter = letter_of(Reject(topic, 0, 7, 1_394_400_000_000, b"BHP", value, (), Reason.UNKNOWN_SCHEMA, "", schema_id))

    verdicts = rehearse(
        [letter], {}, lambda _: Decoder("trade_v2", registry), LIMITS, 1_394_500_000_000_000, lambda _, rows: np.zeros(rows.rows.num_rows, dtype=bool)
    )

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ROW if is_of_venue else Outcome.DEAD], verdicts
