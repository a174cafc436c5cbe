"""Flags as people meet them: explained, counted by symbol within bounds."""

from pathlib import Path

import pyarrow as pa

from k2stream.quality.flags import FLAGS, MEANING, Flag
from k2stream.quality.tally import OTHERS, SYMBOLS, Tally
from k2stream.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "quality.md").read_text(encoding="utf-8")


def test_the_page_lists_the_flags_of_the_code() -> None:
    """Neither one that is not there nor one that nobody explains; every setting named is one."""
    listed = PAGE.partition("<!-- flags: begin -->\n")[2].partition("<!-- flags: end -->")[0]
    table = "".join(f"| `{flag}` | {MEANING[flag]} |\n" for flag in Flag)
    assert listed == "| flag | meaning |\n|---|---|\n" + table
    settings = {f"K2_{name.upper()}" for name in Settings.model_fields}
    assert {word.strip(".`,") for word in PAGE.split() if word.startswith("K2_QUALITY_")} <= settings


def flags_of(*found: tuple[str, list[str]]) -> pa.Table:
    same = {"exchange": "ASX", "data_type": "trades", "timestamp": 0, "topic": "t", "partition": 0}
    rows = [
        {**same, "origin": f"t/0/{n}", "symbol": symbol, "flags": flags, "offset": n}
        for n, (symbol, flags) in enumerate(found)
    ]
    return pa.Table.from_pylist(rows, schema=FLAGS)


def test_symbols_are_counted_each_for_itself() -> None:
    """A row with two flags counts for both; the worst symbols come first."""
    tally = Tally()
    assert tally.add(flags_of(("BHP", ["stale", "price_move"]), ("CBA", ["stale"]))) == {"stale": 2, "price_move": 1}
    assert tally.add(flags_of(("CBA", ["stale"]), ("CBA", ["duplicate"]))) == {"stale": 1, "duplicate": 1}
    said = tally.as_json()
    assert said["flags"] == {"stale": 3, "price_move": 1, "duplicate": 1}
    assert list(said["symbols"].items()) == [("CBA", {"stale": 2, "duplicate": 1}), ("BHP", {"stale": 1, "price_move": 1})]


def test_a_feed_of_ever_new_symbols_does_not_fill_the_memory() -> None:
    """Beyond a bound they are counted together, and none is lost."""
    tally = Tally()
    tally.add(flags_of(*((f"S{n}", ["stale"]) for n in range(SYMBOLS + 50))))
    tally.add(flags_of(("S1", ["stale"]), ("NEW", ["stale"])))
    assert len(tally._counts) == SYMBOLS + 1
    assert tally._counts[OTHERS]["stale"] == 51
    assert tally.as_json()["flags"] == {"stale": SYMBOLS + 52}
