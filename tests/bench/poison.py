"""`make bench-poison`: mutated records through a real worker; each is a row or a letter, its neighbours are all there, and what it costs.

Each on a home of its own: clean, 1 % bad (mutated in every way known; cut short, so as large as good ones), 100 % bad, and 100,000 mutated records
among as many clean ones. What is compared is run by turns, and the median counts: other machines of the host take what they want.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from k2stream.audit import audit_lake
from k2stream.deadletter.kept import letters_dropped, origins_of_letters
from k2stream.decode.registry import FileRegistry
from k2stream.errors import K2Error
from k2stream.home import Home
from k2stream.lake.reader import TableReader
from k2stream.query.engine import Engine
from k2stream.rows import avro_schema
from k2stream.settings import Settings
from k2stream.topics import TopicName
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.bounded import bounded
from k2stream.transport.embedded_log import EmbeddedLog
from k2stream.transport.sink import Outgoing
from k2stream.worker_process import WorkerProcess
from tests.bench import market
from tests.bench.worker_run import ENVIRONMENT, ROOT, wait_until_ready

RUN_SECONDS = 1_200.0
GROWTH = 1.1
"""What memory may grow by between the second and the last third of the records."""
POLL_SECONDS = 0.05
COUNTED = ("rows", "duplicates", "dead_letters", "markers")
KEYS = "SELECT symbol, trade_id FROM read_parquet($files, hive_partitioning = false)"
"""What a trade is known by: a splice may carry its neighbour's key, and whichever of the two is settled first is the row."""

Key = tuple[str, str]
"""Symbol and trade id."""

Mutation = Callable[[random.Random, bytes, bytes], bytes | None]
"""(chance, the value, another value) -> what stands in its place."""


def long_varint(chance: random.Random) -> bytes:
    """A length that nothing has: up to 2^63, some of them negative, some longer than ten bytes."""
    size = chance.choice([2**31, 2**40, 2**62, 2**63 - 1])
    number = (size << 1) ^ (chance.random() < 0.3)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out) if chance.random() < 0.9 else b"\xff" * 11 + bytes(out)


def flipped(chance: random.Random, value: bytes, _: bytes) -> bytes:
    out = bytearray(value)
    for _n in range(chance.randint(1, 8)):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def cut(chance: random.Random, value: bytes, _: bytes) -> bytes:
    return value[: chance.randrange(len(value))]


def spliced(chance: random.Random, value: bytes, other: bytes) -> bytes:
    return value[: chance.randrange(len(value))] + other[chance.randrange(len(other)) :]


def length_bomb(chance: random.Random, value: bytes, _: bytes) -> bytes:
    at = chance.randrange(5, len(value))
    return value[:at] + long_varint(chance) + value[at + 1 :]


def deep_union(chance: random.Random, value: bytes, _: bytes) -> bytes:
    """Branches that no union has, nested as deep as bytes go."""
    at = chance.randrange(5, len(value))
    return value[:at] + chance.choice([b"\x02", b"\x04", b"\x7f", b"\x01"]) * chance.choice([10, 1_000, 20_000]) + value[at:]


def huge_map(chance: random.Random, value: bytes, _: bytes) -> bytes:
    """A map of many entries, whole or promised, in the place of the tail."""
    entries = chance.choice([100, 5_000])
    body = b"".join(b"\x08%04d\x02x" % (n % 10_000) for n in range(entries))
    promised = long_varint(chance) if chance.random() < 0.5 else b"\x90\x4e"
    return value[: max(6, len(value) - 150)] + promised + body


def noise(chance: random.Random, value: bytes, _: bytes) -> bytes | None:
    kind = chance.randrange(4)
    if kind == 0:
        return None
    return (b"", chance.randbytes(chance.randrange(1, 400)), value[:5] + chance.randbytes(chance.randrange(0, 400)))[kind - 1]


def truncated(_: random.Random, value: bytes, __: bytes) -> bytes:
    return value[:-9]


MUTATIONS: tuple[Mutation, ...] = (flipped, cut, spliced, length_bomb, deep_union, huge_map, noise)


@dataclass(slots=True)
class Figures:
    """What one run came to."""

    records: int
    seconds: float
    records_per_second: float
    cpu_us_per_record: float
    """Of the worker, its start left out: what a busy machine does not spoil."""
    counts: dict[str, int]
    rss_peaks_mb: tuple[float, float, float]
    """The most that the worker held while each third of the records went through."""
    faults: list[str] = field(default_factory=list)


def fill(home: Path, count: int, *, is_bad: Callable[[int], bool], mutations: tuple[Mutation, ...], seed: int = 1) -> set[Key]:
    """A home whose log holds `count` trades of which some are mutated; the keys of those that are not."""
    Home.open(home)
    schema_id = FileRegistry(home / "schemas").register(TopicName.parse(market.TOPIC).subject, avro_schema(market.SCHEMA))
    chance, clean = random.Random(seed), set[Key]()
    with closing(EmbeddedLog(home / "log")) as log:
        log.create_topic(market.TOPIC, market.PARTITIONS)
        waiting: dict[int, list[Outgoing]] = {p: [] for p in range(market.PARTITIONS)}
        for start in range(0, count, market.ENCODE_ROWS):
            size = min(market.ENCODE_ROWS, count - start)
            trades = market.made_trades(start, size)
            market.place(trades, schema_id, waiting)
            bad = {number for number in range(start, start + size) if is_bad(number)}
            keys = zip(trades["symbol"].to_pylist(), trades["trade_id"].to_pylist(), strict=True)
            clean.update(key for n, key in enumerate(keys, start) if n not in bad)
            _spoil(waiting, bad, chance, mutations)
            for partition, records in market.full_batches(waiting, is_last=True):
                for few in bounded(records, lambda record: len(record.value or b""), most=market.BATCH_RECORDS):
                    log.append_many([(market.TOPIC, partition, build_log_batch(few))])
    return clean


def _spoil(waiting: dict[int, list[Outgoing]], bad: set[int], chance: random.Random, mutations: tuple[Mutation, ...]) -> None:
    """Records are numbered by their time, as market.made_trades made them."""
    for records in waiting.values():
        for at, record in enumerate(records):
            number = ((record.timestamp_ms - 60) * 1000 - market.FIRST_US) // market.STEP_US
            if number in bad and record.value is not None:
                other = chance.choice(records).value or b"\x00"
                records[at] = replace(record, value=chance.choice(mutations)(chance, record.value, other))


def run(home: Path, records: int) -> Figures:
    """A worker on `home` until every record is counted."""
    ends = market.hold_back(home)
    worker = WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment=dict(ENVIRONMENT))
    try:
        before = wait_until_ready([worker])[0]["process"]["cpu_seconds"]
        cpu = before
        started, process = time.perf_counter(), psutil.Process(worker.pid)
        market.let_go(home, ends)
        counts, peaks_mb = Counter[str](), [0.0, 0.0, 0.0]
        while sum(counts.values()) < records:
            if time.perf_counter() - started > RUN_SECONDS or worker.exit_code() is not None:
                raise K2Error(f"after {time.perf_counter() - started:.0f} s only {dict(counts)} of {records}:\n{worker.last_lines(20)}")
            state = worker.state()
            if state is not None:
                cpu = state["process"]["cpu_seconds"]
                counts = Counter({name: state["trades"]["since_start"][name] for name in COUNTED})
            third = min(2, 3 * sum(counts.values()) // records)
            peaks_mb[third] = max(peaks_mb[third], round(process.memory_info().rss / (1 << 20)))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
    finally:
        code = worker.stop()
    faults = [] if code == 0 else [f"the worker ended with code {code}: {worker.last_lines(20)}"]
    cpu_us = round((cpu - before) / records * 1e6, 1)
    return Figures(records, round(seconds, 2), round(records / seconds), cpu_us, dict(counts), (peaks_mb[0], peaks_mb[1], peaks_mb[2]), faults)


def check(home: Path, clean: set[Key], figures: Figures) -> None:
    """Every offset is accounted for, every letter is there once, in its topic and in its table, and no neighbour is missing."""
    settings = Settings(home=home)
    report = audit_lake(settings, letters=lambda: origins_of_letters(settings), letters_dropped=lambda: letters_dropped(settings))
    figures.faults += report.problems
    with (
        closing(TableReader.open_reader(settings, "trades")) as trades,
        closing(TableReader.open_reader(settings, "dead_letters")) as letters,
        Engine() as engine,
    ):
        head = trades.head()
        held = trades.files(head.snapshot_id) if head.snapshot_id else []
        keys = {(row["symbol"], row["trade_id"]) for row in engine.ask(KEYS, files=held).to_pylist()} if held else set[Key]()
        snapshot = letters.load().current_snapshot()
        kept = letters.files(snapshot.snapshot_id) if snapshot else []
        origins = engine.ask("SELECT origin FROM read_parquet($files, hive_partitioning = false)", files=kept)["origin"].to_pylist() if kept else []
    missing = clean - keys
    if missing:
        figures.faults.append(f"{len(missing)} clean neighbours are missing")
    dead = sum(entry.counts.dead_letters for entry in head.vector.values())
    if len(origins) != dead or len(set(origins)) != dead:
        figures.faults.append(f"the ledger says {dead} dead letters, their table has {len(origins)}, {len(set(origins))} of them different")


def measured(folder: Path, name: str, records: int, *, is_bad: Callable[[int], bool], mutations: tuple[Mutation, ...]) -> Figures:
    """Fill, run, check."""
    clean = fill(folder / name, records, is_bad=is_bad, mutations=mutations)
    figures = run(folder / name, records)
    check(folder / name, clean, figures)
    sys.stdout.write(f"{name}: {json.dumps(asdict(figures))}\n")
    sys.stdout.flush()
    return figures


def by_turns(folder: Path, records: int, turns: int) -> dict[str, Figures]:
    """The median runs of what is compared with each other; faults of all of them."""
    # Every 101st: a hundredth would always be of one of the 50 symbols, and so of one partition.
    kinds: dict[str, tuple[Callable[[int], bool], tuple[Mutation, ...]]] = {
        "clean": (lambda _: False, ()),
        "one percent mutated": (lambda n: n % 101 == 37, MUTATIONS),
        "one percent cut short": (lambda n: n % 101 == 37, (truncated,)),
    }
    found: dict[str, list[Figures]] = {name: [] for name in kinds}
    for turn in range(turns):
        for name, (is_bad, mutations) in kinds.items():
            found[name].append(measured(folder, f"{name} {turn}", records, is_bad=is_bad, mutations=mutations))
    medians = {name: sorted(figures, key=lambda f: f.records_per_second)[turns // 2] for name, figures in found.items()}
    return {name: replace(figures, faults=[fault for f in found[name] for fault in f.faults]) for name, figures in medians.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="mutated ones; what is compared has three times as many in all")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    count = given.records
    with tempfile.TemporaryDirectory(prefix="k2-poison-") as name:
        folder = Path(name)
        runs = by_turns(folder, 3 * count, given.turns) | {
            "all bad": measured(folder, "all", count, is_bad=lambda _: True, mutations=(truncated,)),
            "every mutation": measured(folder, "fuzz", 2 * count, is_bad=lambda n: n % 2 == 1, mutations=MUTATIONS),
        }
    faults = [f"{name}: {fault}" for name, figures in runs.items() for fault in figures.faults]
    clean = runs["clean"].records_per_second
    for name in ("one percent mutated", "one percent cut short"):
        share = runs[name].records_per_second / clean
        sys.stdout.write(f"{name}: {share:.2f} of the clean rate\n")
        if share < 0.5:
            faults.append(f"{name}: less than half of the clean rate")
    if runs["all bad"].records_per_second < 5_000:
        faults.append("with 100 % bad records less than 5,000 a second")
    for name, figures in runs.items():
        _, middle, last = figures.rss_peaks_mb
        if last > GROWTH * middle > 0:
            faults.append(f"{name}: memory grew from {middle:.0f} to {last:.0f} MiB between the second and the last third")
    said = {"runs": {name: asdict(figures) for name, figures in runs.items()}, "faults": faults}
    Path("build").mkdir(exist_ok=True)
    Path("build/poison.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(faults) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
