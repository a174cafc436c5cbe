"""`k2 load` on a log of either kind: a file's rows once each, wherever the loading was killed; what cannot be a row is a letter."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from k2stream.deadletter.envelope import Letter, decode_letter
from k2stream.records import Record
from k2stream.settings import Settings
from k2stream.transport.reader import read_topics

ROOT = Path(__file__).parents[2]
ROWS = 60_000
"""Three chunks."""
BAD = {7: "yesterday", 40_001: "never"}
MAPPING = """\
fields:
  symbol: symbol
  timestamp: {column: time, unit: ms}
  price: price
  quantity: quantity
  currency: {constant: USD}
"""
KILLED = -signal.SIGKILL


class Site:
    """A log, a file of trades with two bad lines, and `k2 load` of it. The exchange is its own: the broker is shared."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.exchange = f"x{uuid4().hex[:6]}"
        self.topic = f"market.crypto.trades.{self.exchange}"
        self.file, self.mapping = folder / "trades.csv", folder / "map.yaml"
        self.mapping.write_text(MAPPING)
        self.environment = {"K2_HOME": str(folder / "k2"), "K2_BROKER": broker, "K2_PARTITIONS": "3"}
        self.settings = Settings(home=folder / "k2", broker=broker)
        self.write(ROWS)

    def write(self, rows: int) -> None:
        """Symbols in turn; a line is 50 bytes."""
        lines = ["symbol,time,price,quantity"]
        lines += [f"S{n % 9},{BAD.get(n, 1_700_000_000_000 + n)},{100 + n / 100:.8f},{n + 1:012d}.00000000" for n in range(rows)]
        self.file.write_text("\n".join(lines) + "\n")

    def command(self, *options: str) -> list[str]:
        files = [str(self.file), "--mapping", str(self.mapping), "--exchange", self.exchange, "--asset-class", "crypto"]
        return [sys.executable, "-m", "k2stream.cli", "load", "trades", *files, *options]

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*options), cwd=ROOT, env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def k2(self, *options: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._ended(self.command(*options), code, environment)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command, which must end well."""
        return self._ended([sys.executable, "-m", "k2stream.cli", *arguments], 0, {})

    def _ended(self, command: Sequence[str], code: int, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        known = {**os.environ, **self.environment, **environment}
        done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=100)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def loaded(self, *options: str, **environment: str) -> dict[str, object]:
        """The summary of a run that got to the end."""
        summary: dict[str, object] = json.loads(self.k2("--json", *options, **environment).stdout)
        return summary

    def records(self) -> list[Record]:
        return list(read_topics(self.settings, [self.topic]))

    def letters(self) -> list[Letter]:
        found = [decode_letter(r.value or b"") for r in read_topics(self.settings, ["dlq.crypto.trades"])]
        return [letter for letter in found if letter.topic == self.topic]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    broker = f"k2kafka://{request.getfixturevalue('kafka')}" if request.param == "kafka" else ""
    return Site(tmp_path, broker)


@pytest.fixture
def embedded(tmp_path: Path) -> Site:
    return Site(tmp_path, "")


def numbers_of(records: Sequence[Record]) -> Counter[int]:
    """Row numbers by message id, whose last twelve digits they are."""
    return Counter(int((r.value or b"")[6:42].decode()[-12:]) for r in records)


def require_each(site: Site) -> None:
    """Every good row at least once, by its number; the bad ones by file and line, however often they were written."""
    good = {n + 1 for n in range(ROWS) if n not in BAD}
    assert set(numbers_of(site.records())) == good
    letters = {letter.origin: letter for letter in site.letters()}.values()
    assert {letter.offset: letter.value for letter in letters} == {n + 2: site.file.read_bytes().splitlines()[n + 1] for n in BAD}
    assert all(letter.file and letter.file.startswith("trades.csv") for letter in letters)


def test_every_row_is_published_once_and_a_second_run_finds_nothing_to_do(site: Site) -> None:
    """A dry run changes nothing; keys keep their partition and their order; rejects are letters with file and line."""
    rejects = site.file.with_name("rejects.csv")
    tried = site.loaded("--dry-run", "--rejects", str(rejects))
    with rejects.open(newline="") as file:
        kept = [(int(r["line"]), r["reason"], r["row"].split(",")[1]) for r in csv.DictReader(file)]
    assert kept == [(n + 2, "malformed", text) for n, text in BAD.items()]
    assert (tried["published"], tried["rejected"]) == (ROWS - len(BAD), len(BAD))
    assert not (site.settings.home / "load").exists()
    summary = site.loaded()
    assert (summary["rows"], summary["published"], summary["rejected"], summary["ids"]) == (ROWS, ROWS - len(BAD), len(BAD), "derived")
    assert "line 9: timestamp: expected a count of ms since 1970, found 'yesterday'" in str(summary["examples"])
    records = site.records()
    assert set(numbers_of(records).values()) == {1}
    for key in {r.key for r in records}:
        own = [r for r in records if r.key == key]
        assert len({r.partition for r in own}) == 1
        assert list(numbers_of(own)) == sorted(numbers_of(own))
    require_each(site)
    again = site.loaded()
    assert (again["rows"], again["resumed_at"]) == (0, ROWS)
    assert len(site.records()) == len(records)


@pytest.mark.parametrize("step", ["load.published:2", "load.saved:1"])
def test_a_load_that_is_killed_goes_on(site: Site, step: str) -> None:
    """kill -9 after publishing and after it is written down: no row is missing, and what comes twice has the same id both times."""
    site.k2(K2_CRASH_AT=step, code=KILLED)
    summary = site.loaded()
    require_each(site)
    twice = Counter(numbers_of(site.records()).values())
    assert set(twice) <= {1, 2}
    assert (twice[2] == 0) == (step == "load.saved:1")
    assert summary["resumed_at"] == ROWS - int(str(summary["rows"]))


def test_a_load_killed_at_any_moment_goes_on(site: Site) -> None:
    """kill -9 from outside, until one run gets through."""
    for seconds in (1.0, 1.5, 2.0):
        with site.start("--rate", "40000") as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
    site.loaded()
    require_each(site)


def wait_until_begun(site: Site, process: subprocess.Popen[bytes]) -> None:
    """A load holds its file's lock from its first row to its end."""
    while not list((site.settings.home / "load").glob("*.lock")):
        assert process.poll() is None
        time.sleep(0.05)


def test_a_rate_is_held(embedded: Site) -> None:
    """10,000 rows at 5,000 a second take two seconds."""
    embedded.write(10_000)
    began = time.monotonic()
    embedded.loaded("--rate", "5000")
    assert time.monotonic() - began >= 1.9


def test_a_changed_file_or_mapping_is_not_loaded_over_what_was(embedded: Site) -> None:
    """Other ids for the same trades, or the same ids for others, would both be silent."""
    embedded.write(100)
    embedded.loaded()
    embedded.mapping.write_text(MAPPING.replace("price: price", "price: quantity"))
    assert "by another mapping" in embedded.k2(code=1).stderr
    assert embedded.loaded("--again")["published"] == 99
    embedded.mapping.write_text(MAPPING)
    embedded.write(101)
    assert "was changed since 100 of its rows were loaded" in embedded.k2(code=1).stderr
    embedded.mapping.write_text(MAPPING + "  trade_id: quantity\n")
    assert embedded.loaded()["ids"] == "mapped"


def test_a_mapping_that_fits_no_row_publishes_nothing(embedded: Site) -> None:
    """A wrong unit is the mapping's fault: one sentence, and not a letter a row."""
    embedded.mapping.write_text(MAPPING.replace("unit: ms", "timezone: UTC"))
    done = embedded.k2(code=1)
    assert done.stderr.startswith("k2: ")
    assert "none of the first" in done.stderr
    assert "timestamp: expected a time as ISO 8601 writes it" in done.stderr
    assert embedded.letters() == []


def test_a_file_that_grows_meanwhile_is_noticed(embedded: Site) -> None:
    """Its content would not be that of its ids."""
    embedded.write(6_000)
    with embedded.start("--rate", "2000") as process:
        wait_until_begun(embedded, process)
        with embedded.file.open("a") as file:
            file.write("S1,1700000000000,1,1\n")
        assert process.wait(60) == 1
    assert embedded.loaded("--again")["published"] == 6_000


def test_a_refused_line_reaches_the_table_however_late_the_table_can_be_written(embedded: Site) -> None:
    """Its topic forgets it after a month: the chunk is done only when the table has it, and twice it is not there."""
    embedded.write(100)
    assert "catalog" in embedded.k2(code=1, K2_CATALOG_URI="http://127.0.0.1:1").stderr
    summary = embedded.loaded()
    assert (summary["resumed_at"], summary["rejected"]) == (0, 1)
    embedded.loaded("--again")
    kept = json.loads(embedded.run("dlq", "list", "--state", "file", "--format", "json").stdout)
    assert [row["id"].rpartition("/")[2] for row in kept] == ["9"]


def test_two_at_once_are_refused(embedded: Site) -> None:
    """Both would publish the same."""
    embedded.write(20_000)
    with embedded.start("--rate", "1000") as first:
        wait_until_begun(embedded, first)
        assert "Another process loads this file" in embedded.k2(code=1).stderr
        first.kill()
