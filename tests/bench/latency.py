"""From a record's time to its committed row, at a steady rate, on a real broker and a PostgreSQL catalog.

    python -m tests.bench.latency [--rate 10000] [--seconds 60] [--workers 1 4] [--out build/bench_latency.json]

Windows close after 1 s; files are synced. A row's latency runs from the record's timestamp (set when its log batch is built) to the
moment the worker hears from the catalog that the row's snapshot is the table's head. Which snapshot holds which offset is read from
the vectors of the table's own snapshots. The first 10 s do not count. Exit code 1 if a bar is missed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k2stream.dev.kafka import Kafka
from k2stream.dev.postgres import Postgres
from k2stream.dev.redis import Redis
from k2stream.errors import K2Error
from k2stream.lake.head import summary_of
from k2stream.lake.offsets import Vector
from k2stream.lake.reader import TableReader
from k2stream.lake.summary import carried_by
from k2stream.records import TopicPartition
from k2stream.settings import Settings, load_settings
from k2stream.worker_process import WorkerProcess
from tests.bench.kafka import register
from tests.bench.kafka_log import new_topic_now
from tests.bench.market import PARTITIONS, TOPIC
from tests.bench.steady import Published, SteadyStream
from tests.bench.worker_run import ROOT, states_of, total_stages, wait_until_ready
from tests.quiet import CpuTime

WARM_UP_SECONDS = 10
LOOK_SECONDS = 4.0
"""A table keeps 50 snapshots: at four workers' pace they are there for ten seconds."""
CATCH_UP_SECONDS = 60.0
P50_MS, P99_MS = 1_000, 2_000

Line = Mapping[str, Any]
"""One event of a worker's log, from JSON."""


class Snapshots:
    """Vectors of every snapshot that was seen while the table still kept it, by id."""

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader
        self.vectors: dict[int, tuple[int, Vector]] = {}
        """Sequence number and vector."""

    def look(self) -> Vector:
        """Remember what is there now; the head's vector."""
        table = self._reader.load()
        for snapshot in table.metadata.snapshots:
            carried = carried_by(summary_of(snapshot)) if snapshot.snapshot_id not in self.vectors else None
            if carried is not None:
                self.vectors[snapshot.snapshot_id] = (snapshot.sequence_number or 0, carried.vector)
        return self._reader.head().vector


def measure(workers: int, services: Mapping[str, str], address: str, folder: Path, *, rate: int, seconds: float) -> dict[str, Any]:  # JSON
    """One run on a new topic, table and set of workers."""
    app_id = f"latency{workers}"
    environment = {
        **services,
        "K2_APP_ID": app_id,
        "K2_NAMESPACE": app_id,
        "K2_WAREHOUSE": str(folder / "warehouse"),
        "K2_WINDOW_MS": "1000",
        "K2_LOG_FORMAT": "json",
    }
    new_topic_now(address)
    homes = [folder / f"{app_id}-{n}" for n in range(workers)]
    (schema_id,) = {register(home) for home in homes}
    stream = SteadyStream(address, schema_id, rate=rate, seconds=seconds)
    started = [WorkerProcess(home=home, root=ROOT, log_path=home / "worker.log", environment=environment) for home in homes]
    try:
        before = wait_until_ready(started)
        settings = Settings(home=homes[0], namespace=app_id, catalog_uri=services["K2_CATALOG_URI"], warehouse=environment["K2_WAREHOUSE"])
        snapshots = Snapshots(TableReader.open_reader(settings, "trades"))
        began, cores = time.time(), CpuTime.now()
        stream.start()
        published = _watched(stream, snapshots, until=began + seconds + CATCH_UP_SECONDS)
        after, stolen_share = states_of(started), CpuTime.now().stolen_share_since(cores)
    finally:
        for worker in started:
            worker.stop()
    lines = [line for home in homes for line in _lines(home / "worker.log")]
    cpu_seconds = sum(a["process"]["cpu_seconds"] - b["process"]["cpu_seconds"] for a, b in zip(after, before, strict=True))
    latencies_ms = _latencies_ms(published, snapshots, lines, from_ms=int((began + WARM_UP_SECONDS) * 1000))
    return {
        "workers": workers,
        **_figures(latencies_ms, lines),
        "cores_busy": round(cpu_seconds / seconds, 2),
        "stolen": f"{stolen_share:.1%}",
        "stages_cpu_seconds": total_stages(after),
        "behind_ms": published.latest_ms,
    }


def _watched(stream: SteadyStream, snapshots: Snapshots, *, until: float) -> Published:
    """Look at the table again and again until all that was published is in it."""
    while time.time() < until:
        time.sleep(LOOK_SECONDS)
        vector, published = snapshots.look(), stream.published
        if stream.is_done() and sum(e.counts.rows for e in vector.values()) == published.rows:
            return published
    raise K2Error(f"after {CATCH_UP_SECONDS:.0f} s the table does not hold the {stream.published.rows} rows that were published")


def _lines(log: Path) -> list[Line]:
    """Events of a worker's log; Faust's own lines are left out."""
    texts = (text for text in log.read_text(encoding="utf-8", errors="replace").splitlines() if text.startswith("{"))
    return [json.loads(text) for text in texts]


def _latencies_ms(published: Published, snapshots: Snapshots, lines: Sequence[Line], *, from_ms: int) -> NDArray[np.float64]:
    """Milliseconds of every row published at or after `from_ms`."""
    heard_ms = {line["snapshot_id"]: _milliseconds(line["timestamp"]) for line in lines if line["event"] == "window.committed"}
    committed = sorted((number, heard_ms[id], vector) for id, (number, vector) in snapshots.vectors.items() if id in heard_ms)
    found = []
    for partition in range(PARTITIONS):
        times = published.times_of(partition)
        ends = np.array([_next(vector, partition) for _, _, vector in committed])
        at = np.searchsorted(ends, np.arange(len(times)), side="right")
        latencies = np.array([ms for _, ms, _ in committed])[at] - times
        found.append(latencies[times >= from_ms])
    return np.concatenate(found)


def _next(vector: Vector, partition: int) -> int:
    entry = vector.get(TopicPartition(TOPIC, partition))
    return 0 if entry is None else entry.next


def _milliseconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() * 1000


def _figures(latencies_ms: NDArray[np.float64], lines: Sequence[Line]) -> dict[str, Any]:  # JSON
    events = Counter(line["event"] for line in lines)
    times_ms = sorted(_milliseconds(line["timestamp"]) for line in lines if line["event"] == "window.committed")
    percentiles = {f"p{q}_ms": round(float(np.percentile(latencies_ms, q))) for q in (50, 90, 99)}
    return {
        "rows": len(latencies_ms),
        **percentiles,
        "max_ms": round(float(latencies_ms.max())),
        "commits": len(times_ms),
        "commits_per_second": round((len(times_ms) - 1) / (times_ms[-1] - times_ms[0]) * 1000, 2),
        "conflicts": events["commit.conflict"],
        "unknown_outcomes": events["commit.undecided"],
        "restarts": events["capture.restart"],
    }


def missed(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The bars that are not met."""
    lines = []
    for one in found:
        for name, bar_ms in (("p50_ms", P50_MS), ("p99_ms", P99_MS)):
            if one[name] >= bar_ms:
                lines.append(f"{one['workers']} workers: {name.removesuffix('_ms')} {one[name]} ms, less than {bar_ms} wanted")
        if one["restarts"]:
            lines.append(f"{one['workers']} workers: {one['restarts']} restarts, none wanted")
    return lines


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a table for people."""
    times = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    names = ("workers", *times, "commits_per_second", "commits", "conflicts", "unknown_outcomes", "restarts", "cores_busy", "stolen")
    heads = [name.replace("_per_", "/").replace("_ms", ", ms").replace("_", " ") for name in names]
    rows = [f"| {' | '.join(str(one[name]) for name in names)} |" for one in result["runs"]]
    wrong = [f"\n**Missed:** {line}." for line in result["missed"]]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows, *wrong])


def main(arguments: list[str] | None = None) -> int:
    """Run, write the files, print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench_latency.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        kinds = (Kafka, Postgres, Redis)
        services = [stack.enter_context(kind(folder / kind.name, load_settings())) for kind in kinds]
        exports = {key: value for service in services for key, value in service.exports().items()}
        runs = [measure(n, exports, services[0].address, folder, rate=options.rate, seconds=options.seconds) for n in options.workers]
    result = {"rate": options.rate, "seconds": options.seconds, "runs": runs, "missed": missed(runs)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(markdown(result) + "\n", encoding="utf-8")
    print(markdown(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
