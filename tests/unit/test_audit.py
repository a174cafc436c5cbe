"""The audit: what is balanced is said to be, and each way of not adding up names its partition."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2stream.audit import AuditReport, Origin, audit
from k2stream.lake.offsets import Counts, Entry
from k2stream.query.engine import Engine
from k2stream.records import TopicPartition
from k2stream.testing import ParquetTable, trade_rows

TOPIC = "market.equities.trades.asx"
A, B = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
HOUR_US = 3_600_000_000
ENTRY_A = Entry(10, 20, Counts(rows=6, duplicates=1, dead_letters=1, markers=1, holes=1))
LETTER: Origin = (TOPIC, 0, 17)


@pytest.fixture
def table(tmp_path: Path) -> ParquetTable:
    """Partition 0: offsets 10-19, six of them rows in two files; partition 1: offsets 0-2, all rows, in a file of its own."""
    table = ParquetTable(tmp_path, {A: ENTRY_A, B: Entry(0, 3, Counts(rows=3))})
    for offsets in ((10, 11, 12), (13, 14, 15)):
        table.add(trade_rows({"partition": 0, "offset": n, "trade_id": f"a{n}"} for n in offsets))
    table.add(trade_rows({"partition": 1, "offset": n, "trade_id": f"b{n}"} for n in range(3)))
    return table


def run(table: ParquetTable, *, letters: list[Origin] | None = None, dropped: int = 0) -> AuditReport:
    kept = [LETTER] if letters is None else letters
    with Engine() as engine:
        return audit(table, engine, tolerance_us=HOUR_US, letters=lambda: kept, letters_dropped=lambda: dropped)


def names_only(report: AuditReport, tp: TopicPartition) -> bool:
    """True if the report is not balanced and every problem is this partition's."""
    return not report.balanced and all(sentence.startswith(f"{tp.topic}/{tp.partition}: ") for sentence in report.problems)


def test_a_table_that_adds_up_is_balanced(table: ParquetTable) -> None:
    """No problem, no note, and the ledger as JSON with every term."""
    report = run(table)

    assert (report.problems, report.notes) == ((), ())
    assert report.as_json() == {
        "balanced": True,
        "snapshot_id": 3,
        "tables": {"trades": 9},
        "partitions": [
            {
                "topic": TOPIC,
                "partition": 0,
                "start": 10,
                "next": 20,
                "rows": 6,
                "duplicates": 1,
                "dead_letters": 1,
                "markers": 1,
                "holes": 1,
                "retired": 0,
            },
            {
                "topic": TOPIC,
                "partition": 1,
                "start": 0,
                "next": 3,
                "rows": 3,
                "duplicates": 0,
                "dead_letters": 0,
                "markers": 0,
                "holes": 0,
                "retired": 0,
            },
        ],
        "problems": [],
        "notes": [],
    }
    assert report.lines()[0].startswith("balanced: trades 9 rows, 2 partitions")


def test_an_empty_table_is_balanced(tmp_path: Path) -> None:
    """A first start that committed nothing has nothing to miss."""
    assert run(ParquetTable(tmp_path), letters=[]).balanced


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_deleted_data_file_names_its_partition(table: ParquetTable, number: int) -> None:
    """Rows that somebody deleted from the table are missed in their own partition and in no other."""
    table.forget(table.files(3)[number])

    assert names_only(run(table), B if number == 2 else A)


@pytest.mark.parametrize("name", ["rows", "duplicates", "dead_letters", "markers", "holes", "retired"])
@pytest.mark.parametrize("change", [1, -1, 1000])
def test_an_edited_count_names_its_partition(table: ParquetTable, name: str, change: int) -> None:
    """No term of the ledger can be edited unseen."""
    counts = replace(ENTRY_A.counts, **{name: getattr(ENTRY_A.counts, name) + change})
    table.vector[A] = replace(ENTRY_A, counts=counts)

    assert names_only(run(table), A)


@pytest.mark.parametrize("edges", [{"start": 9}, {"start": 11}, {"next": 19}, {"next": 21}])
def test_a_moved_edge_names_its_partition(table: ParquetTable, edges: dict[str, int]) -> None:
    """Neither start nor next can be moved unseen."""
    table.vector[A] = replace(ENTRY_A, **edges)

    assert names_only(run(table), A)


def test_two_counts_that_hide_each_other_are_found(table: ParquetTable) -> None:
    """A row called a duplicate keeps the sum and not the recount."""
    table.vector[A] = replace(ENTRY_A, counts=replace(ENTRY_A.counts, rows=5, duplicates=2))

    assert names_only(run(table), A)


def test_retired_rows_stay_counted(table: ParquetTable) -> None:
    """Rows taken out on purpose are counted in rows and in retired; the table holds the difference."""
    table.forget(table.files(3)[0])
    table.vector[A] = replace(ENTRY_A, counts=replace(ENTRY_A.counts, retired=3))

    assert run(table).balanced


def test_a_record_that_became_two_rows_is_found(table: ParquetTable) -> None:
    """As many rows as the ledger says, but one offset twice and one missing: the danger of a retry onto a new head."""
    table.forget(table.files(3)[2])
    table.add(trade_rows({"partition": 1, "offset": n, "trade_id": f"b{i}"} for i, n in enumerate((0, 1, 1))))
    report = run(table)

    assert names_only(report, B)
    assert "3 rows come from 2 offsets" in report.problems[0]


def test_rows_beyond_next_are_found(table: ParquetTable) -> None:
    """A row that no commit of ours speaks of, as a zombie or a stranger would append it."""
    table.add(trade_rows([{"partition": 1, "offset": 3, "trade_id": "zombie"}]))
    report = run(table)

    assert names_only(report, B)
    assert report.tables == {"trades": 10}


def test_rows_of_a_partition_without_entry_are_found(table: ParquetTable) -> None:
    """Rows of an origin that the vector has never heard of."""
    table.add(trade_rows([{"partition": 7, "offset": 0, "trade_id": "stranger"}]))

    assert names_only(run(table), TopicPartition(TOPIC, 7))


def test_rows_from_before_an_adoption_are_a_note(table: ParquetTable) -> None:
    """`k2 adopt` begins a new count: what lies below start is nobody's fault."""
    table.vector[A] = Entry(20, 20)
    report = run(table, letters=[])

    assert report.balanced
    assert report.tables == {"trades": 9}
    assert report.notes == (f"{TOPIC}/0: 6 rows lie below its start; they are from before an adoption and not counted",)


@pytest.mark.parametrize(("apart_us", "is_found"), [(0, True), (HOUR_US, True), (HOUR_US + 1, False)])
def test_a_native_id_held_twice_is_found_within_the_tolerance(table: ParquetTable, apart_us: int, is_found: bool) -> None:
    """Another record with the same id and nearly the same time is what dedup exists for; a day later it is another trade."""
    table.add(trade_rows([{"partition": 1, "offset": 3, "trade_id": "b0", "timestamp": 1_394_400_000_000_000 + apart_us}]))
    table.vector[B] = Entry(0, 4, Counts(rows=4))
    report = run(table)

    assert report.balanced is not is_found
    if is_found:
        assert names_only(report, B)
        assert report.problems == (f"{TOPIC}/1: 2 rows share their native id with another, such as ASX/BHP/b0",)


def test_a_missing_letter_is_found(table: ParquetTable) -> None:
    """Every dead letter of the ledger must lie in its topic; another partition's letter does not stand in for it."""
    assert names_only(run(table, letters=[]), A)
    assert "dead letters" in run(table, letters=[(TOPIC, 1, 1)]).problems[0]


def test_letters_are_counted_by_key(table: ParquetTable) -> None:
    """A letter written twice (a crash between letter and commit) is one letter."""
    table.vector[A] = replace(ENTRY_A, counts=replace(ENTRY_A.counts, dead_letters=2, duplicates=0))

    assert names_only(run(table, letters=[LETTER, LETTER]), A)
    assert run(table, letters=[LETTER, (TOPIC, 0, 18), LETTER]).balanced


def test_letters_that_retention_took_may_be_missing(table: ParquetTable) -> None:
    """A topic that dropped a letter explains one missing letter and not two."""
    table.vector[A] = replace(ENTRY_A, counts=replace(ENTRY_A.counts, dead_letters=2, duplicates=0))

    assert run(table, letters=[LETTER], dropped=1).balanced
    assert names_only(run(table, letters=[], dropped=1), A)


@pytest.mark.parametrize("void", [(TOPIC, 0, 20), (TOPIC, 0, 16), (TOPIC, 5, 0)])
def test_a_void_letter_is_a_note(table: ParquetTable, void: Origin) -> None:
    """A letter whose window never committed is reported and disturbs no balance."""
    report = run(table, letters=[LETTER, void])

    assert report.balanced
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"{TOPIC}/{void[1]}: 1 void letters")


def test_letters_that_nobody_reads_are_not_judged(table: ParquetTable) -> None:
    """Without a reader of letters the audit says nothing of them."""
    with Engine() as engine:
        assert audit(table, engine, tolerance_us=HOUR_US).balanced


def test_a_file_that_is_gone_is_a_problem_and_its_rows_are_missed(table: ParquetTable) -> None:
    """A data file removed under the table is named, and so is the partition that lost its rows."""
    gone = Path(table.files(3)[2].path)
    gone.unlink()
    report = run(table)

    assert not report.balanced
    assert "cannot be read" in report.problems[0]
    assert "00002.parquet" in report.problems[0]
    assert [sentence.split(": ")[0] for sentence in report.problems[1:]] == [f"{TOPIC}/1"]


def test_a_file_written_over_with_fewer_rows_is_a_problem(table: ParquetTable) -> None:
    """The manifest's count, the file's own and the ledger's are three words for one number."""
    path = table.files(3)[2].path
    pq.write_table(pq.read_table(path).slice(1), path)
    report = run(table)

    assert "the manifest says 3 rows, the file holds 2" in report.problems[0]
    assert report.problems[1].startswith(f"{TOPIC}/1: ")
