"""Topic names: built, parsed, and matched by pattern."""

import pytest

from k2stream.errors import SettingsError
from k2stream.rows import SCHEMA_OF_DATA_TYPE
from k2stream.topics import KINDS, LETTER_TOPICS, TopicName, resolve


def test_a_name_is_parsed_into_the_parts_it_was_built_from():
    """str and parse are inverse."""
    name = TopicName("equities", "trades", "asx")
    assert TopicName.parse(str(name)) == name


@pytest.mark.parametrize("topic", ["market.equities.trades", "dlq.equities.trades", "market..trades.asx", "market.a.b.c.d"])
def test_a_name_of_another_form_is_refused_and_named(topic: str):
    """The sentence holds what was found and what was expected."""
    with pytest.raises(SettingsError, match=r"expected market\.ASSET_CLASS") as caught:
        TopicName.parse(topic)
    assert repr(topic) in str(caught.value)


def test_a_star_stands_for_one_part_only():
    """market.*.trades.* takes the trades of all venues and nothing deeper."""
    existing = ["market.equities.trades.asx", "market.crypto.trades.binance", "market.crypto.quotes.binance", "market.crypto.trades.binance.raw"]
    assert resolve(["market.*.trades.*"], existing, "trades") == ["market.crypto.trades.binance", "market.equities.trades.asx"]


def test_dead_letters_never_match_a_pattern():
    """A pattern of stars must not feed letters back as trades."""
    assert resolve(["*.*.*", "dlq.*.trades"], LETTER_TOPICS, "trades") == []


CRYPTO = [f"market.crypto.{data_type}.{exchange}" for data_type in ("trades", "quotes") for exchange in ("binance", "kraken")]
EXISTING = [*CRYPTO, "market.equities.trades.asx"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("exchange:binance", ["market.crypto.trades.binance"]),
        ("asset_class:crypto", ["market.crypto.trades.binance", "market.crypto.trades.kraken"]),
        ("data_type:trades", ["market.crypto.trades.binance", "market.crypto.trades.kraken", "market.equities.trades.asx"]),
        ("exchange:asx,market.crypto.trades.kraken", ["market.crypto.trades.kraken", "market.equities.trades.asx"]),
        ("market.*.*.*", ["market.crypto.trades.binance", "market.crypto.trades.kraken", "market.equities.trades.asx"]),
        ("market.crypto.quotes.binance", []),
    ],
)
def test_topics_are_chosen_by_exchange_asset_class_data_type_or_name(wanted: str, found: list[str]):
    """A list of any of them; rows of another contract are never among them."""
    assert resolve(wanted.split(","), EXISTING, "trades") == found


def test_an_unknown_selector_is_named():
    """What was found and what is known."""
    with pytest.raises(SettingsError, match=r"K2_TOPICS: 'venue:asx': expected asset_class:NAME"):
        resolve(["venue:asx"], EXISTING, "trades")


def test_every_data_type_has_the_contract_that_rows_are_derived_from():
    """topics and rows speak of the same contracts."""
    assert {k: v.schema for k, v in KINDS.items()} == SCHEMA_OF_DATA_TYPE
