"""The DuckDB engine's closed doors."""

import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from k2stream.errors import QueryError
from k2stream.query.engine import Engine
from k2stream.table_file import TableFile
from k2stream.testing import ParquetTable, trade_rows

COUNT = "SELECT count(*) AS n FROM read_parquet($files, hive_partitioning = false)"


@pytest.mark.parametrize("sql", ["LOAD httpfs", "SELECT * FROM read_parquet('https://localhost:9/x.parquet')"])
def test_nothing_is_loaded_or_downloaded(sql: str) -> None:
    """An extension that is not built in is refused, and cannot be allowed later."""
    with Engine() as engine:
        with pytest.raises(QueryError):
            engine.ask("SET autoinstall_known_extensions = true")
        with pytest.raises(QueryError):
            engine.ask(sql)


def test_python_variables_are_not_tables() -> None:
    """A name in SQL never reaches into the caller's variables."""
    secret = pa.table({"x": [1]})
    with Engine() as engine, pytest.raises(QueryError, match="secret"):
        engine.ask("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    """The error says which file could not be read."""
    gone = TableFile(str(tmp_path / "gone.parquet"), 1, 1, {}, {})
    with Engine() as engine, pytest.raises(QueryError, match=r"gone\.parquet"):
        engine.ask(COUNT, files=[gone])


@pytest.mark.parametrize("folder", ["a[1]", "a*", "what?", "exchange=ZZZ", "with 'quote' and %20", "file"])
def test_a_path_means_exactly_that_file(tmp_path: Path, folder: str) -> None:
    """Glob characters, percent signs and hive names in a path are letters; neighbours that a glob would match are not read."""
    for name in (folder, "a1", "ab", "whatx"):
        (tmp_path / name).mkdir(exist_ok=True)
        ParquetTable(tmp_path / name).add(trade_rows([{"symbol": name}]))
    path = str(tmp_path / folder / "00000.parquet")
    with Engine() as engine:
        for written in (path, f"file://{path}"):
            file = TableFile(written, 1, 1, {}, {})
            found = engine.ask("SELECT symbol, exchange FROM read_parquet($files, hive_partitioning = false)", files=[file])

            assert [{"symbol": folder, "exchange": "ASX"}] == found.to_pylist()


def test_threads_ask_at_once_without_seeing_each_others_tables() -> None:
    """A table registered by one question is invisible to another that runs at the same time."""
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        for _ in range(20):
            found = engine.ask("SELECT sum(x)::BIGINT AS n FROM question", tables={"question": pa.table({"x": [number] * 1000})})
            answers[number] = found["n"][0].as_py()
            assert answers[number] == 1000 * number

    with Engine() as engine:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {number: 1000 * number for number in range(1, 5)} == answers


def test_too_big_a_question_is_refused_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a spill folder a question beyond the memory limit fails plainly instead of writing where it stands."""
    monkeypatch.chdir(tmp_path)
    with Engine(memory_bytes=16 << 20) as engine, pytest.raises(QueryError, match=r"(?i)memory"):
        engine.ask("SELECT count(DISTINCT hash(i)) FROM range(20_000_000) t(i)")
    assert os.listdir(tmp_path) == []


def test_a_spill_folder_carries_what_does_not_fit(tmp_path: Path) -> None:
    """With a spill folder the same question is answered."""
    with Engine(memory_bytes=64 << 20, spill=tmp_path / "spill") as engine:
        found = engine.ask("SELECT count(*) AS n FROM (SELECT i FROM range(6_000_000) t(i) ORDER BY hash(i) OFFSET 5)")
    assert found["n"][0].as_py() == 5_999_995


def test_times_are_utc_whatever_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day in an answer is a UTC day on a machine in Sydney too."""
    monkeypatch.setenv("TZ", "Australia/Sydney")
    file = ParquetTable(tmp_path).add(trade_rows([{"timestamp": 86_399_999_999}]))
    with Engine() as engine:
        found = engine.ask("SELECT CAST(timestamp AS DATE)::VARCHAR AS day FROM read_parquet($files)", files=[file])

    assert found["day"].to_pylist() == ["1970-01-01"]
