"""Records mutated in every way known: a worker lives, each is a row or a letter, and no neighbour is missing."""

from pathlib import Path

import pytest

from tests.bench.poison import MUTATIONS, check, fill, run


@pytest.mark.timeout(300)
def test_mutated_records_become_rows_or_letters_and_cost_no_neighbour(tmp_path: Path) -> None:
    """Bit flips, cuts, splices, length bombs, deep unions, huge maps, noise; `make bench-poison` takes 100,000 of them."""
    clean = fill(tmp_path / "k2", 6_000, is_bad=lambda n: n % 2 == 1, mutations=MUTATIONS)
    figures = run(tmp_path / "k2", 6_000)
    check(tmp_path / "k2", clean, figures)
    assert figures.faults == []
    assert figures.counts["dead_letters"] > 2_000
