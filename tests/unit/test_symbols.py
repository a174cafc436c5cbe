"""One name for one pair on all venues: the shipped file holds, and a wrong one is named with its key."""

from pathlib import Path

import pytest

from k2stream.errors import QueryError, SettingsError
from k2stream.feed import binance, coinbase, kraken
from k2stream.feed.venue import VENUES
from k2stream.query.across import TRADES_ACROSS, across
from k2stream.query.engine import Engine
from k2stream.settings import Settings
from k2stream.symbols import Pair, listed_as, listings, pairs_of
from k2stream.testing import ParquetTable, trade_rows
from k2stream.topics.files import symbols_by_exchange


def written(folder: Path, text: str) -> Settings:
    (folder / "symbols.yaml").write_text(text)
    return Settings(symbols_file=str(folder / "symbols.yaml"))


def test_the_shipped_file_names_every_symbol_that_feeds_ask_for() -> None:
    """Each as its venue's own parser reads it: no pair is mistaken for another."""
    found = listings(Settings())
    asked = {(venue.upper(), symbol) for venue, symbols in symbols_by_exchange(Settings()).items() if venue in VENUES for symbol in symbols}
    assert {(listed.exchange, listed.symbol) for listed in found} == asked
    readers = {"BINANCE": binance.assets, "COINBASE": coinbase.assets, "KRAKEN": kraken.assets}
    assert all(readers[listed.exchange](listed.symbol) == (listed.pair.base, listed.pair.quote) for listed in found)


def test_a_pair_is_found_on_all_its_venues() -> None:
    """And a dollar is no Tether."""
    found = listings(Settings())
    assert [(n.exchange, n.symbol) for n in listed_as(found, ["btc/usd"])] == [("COINBASE", "BTC-USD"), ("KRAKEN", "BTC/USD")]
    assert {n.exchange for n in listed_as(found, ["BTC/USD", "BTC/USDT"])} == {"BINANCE", "COINBASE", "KRAKEN"}
    assert pairs_of(found, "kraken")["BTC/USD"] == Pair("BTC", "USD")
    with pytest.raises(QueryError, match="BTC/EUR: no pair"):
        listed_as(found, ["BTC/EUR"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pairs:\n  btcusd:\n    kraken: BTC/USD\n", r"pairs.btcusd: expected BASE/QUOTE"),
        ("pairs:\n  BTC/USD:\n    kraken: BTC/USD\n  ETH/USD:\n    kraken: BTC/USD\n", r"pairs.ETH/USD.kraken: BTC/USD is BTC/USD already"),
        ("pairs: nothing\n", "pairs"),
        ("pears:\n  a: b\n", "pears|pairs"),
        ("{", "not YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    """What was expected and where."""
    with pytest.raises(SettingsError, match=said):
        listings(written(tmp_path, text))


def test_trades_of_a_pair_come_from_all_venues_in_order_of_time(tmp_path: Path) -> None:
    """Those of other symbols, and of other venues' symbols of the same spelling, do not."""
    told = [("KRAKEN", "BTC/USD"), ("COINBASE", "BTC-USD"), ("BINANCE", "BTCUSDT"), ("COINBASE", "BTC/USD"), ("KRAKEN", "BTC/USD"), ("COINBASE", "ETH-USD")]
    rows = trade_rows(
        [{"exchange": e, "symbol": s, "trade_id": f"{e}-{n}", "timestamp": 1_394_400_000_000_000 + n, "offset": n} for n, (e, s) in enumerate(told)]
    )
    names = [(str(n.pair), n.exchange, n.symbol) for n in listed_as(listings(Settings()), ["BTC/USD"])]
    table = ParquetTable(tmp_path)
    table.add(rows)
    files = table.files(1)
    with Engine() as engine:
        answer = across(engine, files, names)
        assert across(engine, [], names) == TRADES_ACROSS.empty_table()
    assert answer.schema == TRADES_ACROSS
    assert answer["trade_id"].to_pylist() == ["KRAKEN-4", "COINBASE-1", "KRAKEN-0"]
    assert set(answer["pair"].to_pylist()) == {"BTC/USD"}
