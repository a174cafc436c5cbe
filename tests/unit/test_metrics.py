"""What is measured is what docs/metrics.md says. `python tests/unit/test_metrics.py` writes its table anew."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from k2stream import metrics
from k2stream.records import TopicPartition

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->"
DATA_TYPE = "test"


def declared() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name as Prometheus stores it, kind, labels and meaning of each metric of our own."""
    for metric in vars(metrics).values():
        if isinstance(metric, metrics.RecordLatency):
            yield metric.name, "histogram", ("data_type",), metric.documentation
        elif hasattr(metric, "_labelnames"):
            suffix = "_total" if metric._type == "counter" else ""
            yield metric._name + suffix, metric._type, metric._labelnames, metric._documentation


def table() -> str:
    rows = (f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {says} |" for name, kind, labels, says in declared())
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows, ""])


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def test_the_page_lists_what_is_declared() -> None:
    """A metric that nobody is told of is not watched, one that is not there is watched in vain."""
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == table(), "run: python tests/unit/test_metrics.py"


def test_what_is_declared_is_told() -> None:
    """A metric that no module tells stands at nothing for ever."""
    sources = " ".join(path.read_text(encoding="utf-8") for path in (Path(metrics.__file__).parent).rglob("*.py"))
    names = [name for name, metric in vars(metrics).items() if isinstance(metric, metrics.RecordLatency) or hasattr(metric, "_labelnames")]
    assert [name for name in names if not re.search(rf"(?:metrics\.| )({name})\.", sources)] == []


def test_labels_come_from_fixed_lists() -> None:
    """A label with a value a record or a symbol could choose would make series without end; partitions are those owned."""
    assert {label for _, _, labels, _ in declared() for label in labels} == {
        "data_type", "reason", "kind", "table", "topic", "partition", "cause", "stage", "task", "what", "flag",
    }  # fmt: skip


def test_names_say_their_unit() -> None:
    """Seconds, bytes, rows or offsets; what has no unit is a count of things named."""
    for name, kind, _, _ in declared():
        assert name.startswith("k2_")
        assert "_ms" not in name
        assert name.endswith("_total") == (kind == "counter")


def test_the_page_of_a_worker_can_be_parsed() -> None:
    """By Prometheus' own rules: the process' own figures and ours in one text."""
    families = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {"k2_healthy", "k2_latency_seconds", "process_resident_memory_bytes"} <= families


def test_a_partition_that_went_away_shows_no_lag() -> None:
    """Lag of a partition that another worker has now would be counted twice, and for ever."""
    metrics.show_lag(DATA_TYPE, {TopicPartition("a", 0): 5, TopicPartition("a", 1): 7})
    metrics.show_lag(DATA_TYPE, {TopicPartition("a", 1): 2})
    assert value("k2_lag_offsets", data_type=DATA_TYPE) == 2
    assert value("k2_partitions", data_type=DATA_TYPE) == 1
    assert value("k2_partition_lag_offsets", data_type=DATA_TYPE, topic="a", partition="0") is None
    metrics.show_lag(DATA_TYPE, {})
    assert value("k2_lag_offsets", data_type=DATA_TYPE) == 0


def test_causes_of_bad_health_are_kinds() -> None:
    """A cause names its partition; its kind does not, or every partition would be a series."""
    metrics.show_health(["paused a/0", "paused a/1", "registry"])
    assert value("k2_healthy") == 0
    assert value("k2_unhealthy", cause="paused") == 1
    metrics.show_health([])
    assert value("k2_healthy") == 1
    assert value("k2_unhealthy", cause="paused") is None


def test_the_first_dead_letter_is_seen() -> None:
    """A counter that is born at 1 has no rate: the alert on dead letters would miss a feed's first bad hour."""
    metrics.begin(DATA_TYPE, reasons=["truncated"], kinds=["opened"])
    assert value("k2_dead_letters_total", data_type=DATA_TYPE, reason="truncated") == 0
    assert value("k2_gap_events_total", data_type=DATA_TYPE, kind="opened") == 0
    assert value("k2_rows_total", data_type=DATA_TYPE) == 0


def test_latency_counts_every_record_of_a_log_batch() -> None:
    """Buckets are cumulative, and their last is the count; a clock that ran ahead takes nothing from the sum."""
    registry = CollectorRegistry()
    latency = metrics.RecordLatency("k2_test_seconds", "Test", bounds=(0.5, 1.0), registry=registry)
    latency.observe("trades", [(0.5, 10), (0.7, 5), (-1.0, 1), (9.0, 2)])
    buckets = {le: registry.get_sample_value("k2_test_seconds_bucket", {"data_type": "trades", "le": le}) for le in ("0.5", "1.0", "+Inf")}
    assert buckets == {"0.5": 11, "1.0": 16, "+Inf": 18}
    assert registry.get_sample_value("k2_test_seconds_count", {"data_type": "trades"}) == 18
    assert registry.get_sample_value("k2_test_seconds_sum", {"data_type": "trades"}) == pytest.approx(5 + 3.5 + 18)


if __name__ == "__main__":
    whole = PAGE.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(0)
