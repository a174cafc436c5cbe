"""What tests see of a worker from outside: its `/state`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from k2stream.records import TopicPartition
from k2stream.worker_process import WorkerProcess

START_SECONDS = 120.0
"""A worker's first rows on a machine that has much else to do."""


def until(holds: Callable[[], bool], seconds: float = 40) -> None:
    """Wait until it is so; fails if it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rows_of(worker: WorkerProcess) -> int:
    """Rows that the worker has committed."""
    return sum(p["rows"] for p in _partitions(worker))


def nexts_of(worker: WorkerProcess, topic: str) -> dict[TopicPartition, int]:
    """How far a topic is committed, by partition."""
    return {TopicPartition(topic, p["partition"]): p["next"] for p in _partitions(worker) if p["topic"] == topic}


def causes_of(worker: WorkerProcess) -> Mapping[str, str]:
    """What is wrong, as the worker says; empty while it does not answer."""
    causes: Mapping[str, str] = (worker.state() or {}).get("causes", {})
    return causes


def is_well(worker: WorkerProcess) -> bool:
    """It answers, and nothing is wrong."""
    return bool((worker.state() or {}).get("healthy"))


def _partitions(worker: WorkerProcess) -> list[dict[str, Any]]:
    trades = (worker.state() or {}).get("trades", {})
    partitions: list[dict[str, Any]] = trades.get("partitions", [])
    return partitions
