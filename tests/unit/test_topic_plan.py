"""A plan mends what differs, once, and loses nothing; files that declare topics are checked to the key."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2stream.errors import SettingsError
from k2stream.settings import Settings
from k2stream.topics import KEPT_30_DAYS, KINDS, LETTER_TOPICS, TopicName
from k2stream.topics.files import declared_topics, symbols_by_exchange, symbols_of
from k2stream.topics.plan import Action, Declared, Found, Step, plan

ROOT = Path(__file__).parents[2]
NAMES = ["market.crypto.trades.binance", "market.crypto.quotes.binance", "market.equities.trades.asx", "dlq.crypto.trades", "somebody.elses"]
OURS = NAMES[:-1]
configs = st.dictionaries(st.sampled_from(["retention.ms", "cleanup.policy", "segment.ms"]), st.sampled_from(["delete", "compact", "compact,delete", "1"]))
files = st.dictionaries(st.sampled_from(OURS), st.tuples(st.integers(1, 5), configs)).map(lambda d: [Declared(n, p, c) for n, (p, c) in d.items()])
logs = st.dictionaries(st.sampled_from(NAMES), st.builds(Found, st.integers(1, 5), configs))


def after(steps: Sequence[Step], log: Mapping[str, Found]) -> dict[str, Found]:
    """The log when a broker has done what each step says."""
    found = dict(log)
    for step in steps:
        if step.action is Action.DELETE:
            del found[step.topic]
            continue
        old = found.get(step.topic, Found(0, {}))
        found[step.topic] = Found(max(old.partitions, step.partitions), {**old.config, **step.config})
    return found


@given(declared=files, log=logs, delete=st.booleans())
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(declared: list[Declared], log: dict[str, Found], delete: bool) -> None:
    """Twice is as once, whatever was there; what is still different is exactly what was refused."""
    first = plan(declared, log, delete=delete)
    second = plan(declared, after(first.steps, log), delete=delete)
    assert second.steps == []
    assert second.refused == first.refused
    assert {d.topic for d in second.differences} == {sentence.split(":")[0] for sentence in first.refused}


@given(declared=files, log=logs, delete=st.booleans())
def test_nothing_shrinks_and_nothing_is_deleted_unasked(declared: list[Declared], log: dict[str, Found], delete: bool) -> None:
    """Partitions never go away; only topics of ours that nobody declares may, and only with `delete`; somebody else's are never touched."""
    made = plan(declared, log, delete=delete)
    then = after(made.steps, log)
    gone = set(log) - set(then)
    assert gone == ({n for n in log if n in OURS} - {d.name for d in declared} if delete else set())
    assert all(then[name].partitions >= log[name].partitions for name in set(log) - gone)
    assert then.get("somebody.elses") == log.get("somebody.elses")


@given(declared=files, log=logs)
def test_every_difference_is_mended_or_refused(declared: list[Declared], log: dict[str, Found]) -> None:
    """After a plan each declared topic is there, no smaller and with every declared setting; its growth is warned of."""
    made = plan(declared, log)
    then = after(made.steps, log)
    for topic in declared:
        assert then[topic.name].partitions >= topic.partitions
        assert plan([topic], {topic.name: then[topic.name]}).steps == []
    assert all("order of a symbol" in step.warns for step in made.steps if step.action is Action.GROW)
    assert bool(made.differences) == bool(made.steps or made.refused)


def test_a_plan_reads_as_sentences() -> None:
    """What is done, with what to mind, and what is left."""
    declared = [Declared(OURS[0], 4, {"retention.ms": "5"}), Declared(OURS[1], 2, {}), Declared(OURS[2], 8, {})]
    log = {OURS[0]: Found(2, {"retention.ms": "1"}), OURS[1]: Found(3, {}), OURS[3]: Found(1, {})}
    made = plan(declared, log)
    assert [d.line() for d in made.differences] == [
        "market.crypto.trades.binance: partitions: declared 4, found 2",
        "market.crypto.trades.binance: retention.ms: declared 5, found 1",
        "market.crypto.quotes.binance: partitions: declared 2, found 3",
        "market.equities.trades.asx: topic: declared 8 partitions, found nothing",
        "dlq.crypto.trades: topic: declared nothing, found 1 partitions",
    ]
    lines = made.lines()
    assert lines[0] == "configure market.crypto.trades.binance  retention.ms 1 -> 5"
    assert lines[1] == "grow      market.crypto.trades.binance  2 -> 4 partitions"
    assert lines[2].startswith("  mind: keys move")
    assert lines[3].startswith("create    market.equities.trades.asx  with 8 partitions")
    assert [line[:34] for line in lines[4:]] == ["left      market.crypto.quotes.bin", "left      dlq.crypto.trades: nobod"]
    assert plan(declared[2:], {OURS[2]: Found(8, {})}).lines() == ["Nothing to do: every topic is as declared."]


# --- the files ---------------------------------------------------------------------------------------------


def test_the_files_that_are_shipped_say_what_the_code_relies_on() -> None:
    """Keys and contracts as in the code, letters of every asset class with K2_PARTITIONS, compaction for reference data only."""
    declared = {topic.name: topic for topic in declared_topics(Settings(partitions=8))}
    assert set(LETTER_TOPICS) <= set(declared)
    assert {declared[name].partitions for name in LETTER_TOPICS} == {8}
    assert all(KEPT_30_DAYS.items() <= declared[name].config.items() for name in LETTER_TOPICS)
    for name in set(declared) - set(LETTER_TOPICS):
        kind = KINDS[TopicName.parse(name).data_type]
        assert kind.partitions in (None, declared[name].partitions)
        assert {key: declared[name].config[key] for key in kind.config} == dict(kind.config), name
    assert (declared["market.equities.trades.asx"].partitions, declared["market.crypto.trades.binance"].partitions) == (30, 40)


def test_the_instruments_that_are_shipped_are_written_as_their_venues_do() -> None:
    """Twelve of Binance, eleven of Kraken and Coinbase."""
    symbols = symbols_by_exchange(Settings())
    assert {name: (len(found), found[0]) for name, found in symbols.items()} == {
        "binance": (12, "BTCUSDT"),
        "kraken": (11, "BTC/USD"),
        "coinbase": (11, "BTC-USD"),
    }
    assert symbols_of(Settings(), "kraken") == symbols["kraken"]
    with pytest.raises(SettingsError, match=r"instruments\.yaml: exchanges\.bybit\.symbols: expected at least one, found none"):
        symbols_of(Settings(), "bybit")


GOOD = """\
data_types:
  trades:
    key: symbol
    config:
      retention.ms: 5
topics:
  market.crypto.trades.binance:
    partitions: 3
"""
WRONG = {
    "no number": (GOOD.replace("3", "many"), "topics.market.crypto.trades.binance.partitions", "many"),
    "no partitions": (GOOD.replace("3", "0"), "topics.market.crypto.trades.binance.partitions", "greater than 0"),
    "another key": (GOOD.replace("key: symbol", "key: exchange"), "data_types.trades.key", "expected symbol, found exchange"),
    "unknown data type": (GOOD.replace("  trades:", "  depth:"), "data_types.depth.key", "trades, quotes"),
    "unknown word": (GOOD.replace("    partitions: 3", "    shards: 3"), "shards", "Extra inputs"),
    "name": (GOOD.replace("market.crypto.trades.binance", "trades"), "topics.trades", "market.ASSET_CLASS"),
    "letters": (GOOD.replace("market.crypto.trades.binance", "dlq.crypto"), "topics.dlq.crypto", "dlq.ASSET_CLASS"),
    "twice": (GOOD + "  market.crypto.trades.binance:\n    partitions: 4\n", "market.crypto.trades.binance", "line 9"),
    "not YAML": ("topics: [", "YAML", "line 1"),
    "nothing": ("", "the file", "valid dictionary"),
    "an undeclared data type": (GOOD.replace("trades.binance", "quotes.binance"), "topics.market.crypto.quotes.binance", "data_types"),
    "a table of instruments in parts": (
        GOOD.replace("trades.binance", "reference_data.binance") .replace("  trades:\n    key: symbol", "  reference_data:\n    key: company_id"),
        "topics.market.crypto.reference_data.binance.partitions",
        "expected 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_by_file_and_key(name: str, tmp_path: Path) -> None:
    """Before anything is asked of a log."""
    text, key, says = WRONG[name]
    path = tmp_path / "topics.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        declared_topics(Settings(topics_file=str(path)))
    sentence = str(caught.value)
    assert str(path) in sentence
    assert key in sentence or name == "not YAML"
    assert says in sentence


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(SettingsError, match=r"missing\.yaml cannot be read.*--file"):
        declared_topics(Settings(topics_file=str(tmp_path / "missing.yaml")))
