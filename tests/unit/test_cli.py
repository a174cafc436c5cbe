"""The command line ends with a sentence, never with a traceback, and asking makes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k2stream.errors import QueryError
from k2stream.home import Home
from k2stream.moment import moment_of

ROOT = Path(__file__).parents[2]


def k2(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    env = {**clean, "K2_HOME": str(home), **environment}
    return subprocess.run([sys.executable, "-m", "k2stream.cli", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [["query", "trades"], ["audit"], ["adopt"]])
def test_a_question_before_the_first_run_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    """No traceback, exit code 1, and no home made by asking."""
    done = k2(tmp_path / "k2", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("k2: There are no tables yet")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "k2").exists()


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    """Names the variable, what was found and what is expected."""
    done = k2(tmp_path / "k2", "query", "trades", K2_WINDOW_ROWS="many")
    assert done.returncode == 1
    assert done.stderr.startswith("k2: K2_WINDOW_ROWS='many': Input should be a valid integer")
    assert len(done.stderr.splitlines()) == 1


def test_pages_for_everybody_need_a_key(tmp_path: Path) -> None:
    """An address that others reach is refused without K2_WEB_KEY."""
    done = k2(tmp_path / "k2", "worker", K2_WEB_HOST="0.0.0.0")
    assert done.returncode == 1
    assert done.stderr.startswith("k2: K2_WEB_HOST: any address but 127.0.0.1 needs a K2_WEB_KEY")


def test_a_worker_in_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    """Nothing is started where reset could later do harm."""
    (tmp_path / "letter.txt").touch()
    done = k2(tmp_path, "worker", K2_WEB_PORT="0")
    assert done.returncode == 1
    assert "holds things that k2 did not make" in done.stderr


def test_reset_asks_first_and_refuses_beside_a_worker(tmp_path: Path) -> None:
    """What is asked away stays; what is held stays even with --yes; then it goes."""
    home = Home.open(tmp_path / "k2")
    (home.path / "log").mkdir()
    assert k2(home.path, "reset").returncode != 0  # no answer is no
    with home.hold():
        held = k2(home.path, "reset", "--yes")
    assert held.returncode == 1
    assert "A worker runs in" in held.stderr
    assert home.made() == ["log"]
    assert k2(home.path, "reset", "--yes").stdout == f"Removed from {home.path}: log.\n"
    assert k2(home.path, "reset", "--yes").stdout == "Nothing to remove.\n"


def test_doctor_exits_1_only_if_something_is_wrong(tmp_path: Path) -> None:
    """For scripts."""
    assert k2(tmp_path / "k2", "doctor", K2_WEB_PORT="0").returncode == 0
    assert k2(tmp_path / "k2", "doctor", K2_WEB_PORT="0", K2_REGISTRY_URL="ftp://x").returncode == 1


def test_help_loads_nothing_heavy() -> None:
    """`k2 --help` answers at once: no command's modules are imported before it runs."""
    script = "import sys; import k2stream.cli; print(sorted({'pyarrow', 'faust', 'duckdb', 'pyiceberg', 'datafusion'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_times_are_utc_unless_they_say_otherwise() -> None:
    """A time without a zone must not mean the machine's own."""
    assert str(moment_of("--from", "2014-03-03T10:00")) == "2014-03-03 10:00:00+00:00"
    assert str(moment_of("--from", "2014-03-03T10:00+11:00")) == "2014-03-03 10:00:00+11:00"
    with pytest.raises(QueryError, match="--to noon: expected an ISO 8601 time"):
        moment_of("--to", "noon")
