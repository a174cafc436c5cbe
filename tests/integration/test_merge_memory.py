"""A merge holds its rows, and little beside them: what upkeep may take is said by a setting."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from k2stream.deadletter.rows import DEAD_LETTERS
from k2stream.lake.declaration import COMMIT_FIELDS, TableDeclaration
from k2stream.lake.merge import sorted_groups
from k2stream.lake.parquet import ParquetFormat
from k2stream.rows import TRADES
from tables.lake.trades import TRADES as TRADES_TABLE
from tests.integration.lake_site import LakeSite, soon, window

FILES = 8
POOLS: list[pa.MemoryPool] = []
"""What was taken from a pool is given back to it, maybe later than a test ends."""


@contextmanager
def counted() -> Iterator[pa.MemoryPool]:
    """A pool that knows the most that was ever taken from it."""
    POOLS.append(pa.proxy_memory_pool(pa.default_memory_pool()))
    pa.set_memory_pool(POOLS[-1])
    try:
        yield POOLS[-1]
    finally:
        pa.set_memory_pool(pa.default_memory_pool())


def many_trades(site: LakeSite) -> pa.Table:
    """250,000 trades of 97 symbols."""
    some, count = window(1, 0, 2_000).rows, 250_000
    rows = some.take(pa.array(np.arange(count) % some.num_rows))
    symbols = pa.array([f"S{n:02}" for n in range(97)]).take(pa.array(np.arange(count) * 7919 % 97))
    changed = {"symbol": symbols, "offset": pa.array(np.arange(count))}
    return pa.table([changed.get(f.name, rows[f.name]) for f in rows.schema], schema=TRADES)


def large_letters(site: LakeSite) -> pa.Table:
    """Letters that are little but bytes; those of the first quarter are a hundred times as large as the others."""
    count, random = 768, np.random.default_rng(7)
    some = window(1, 0, count, letters=list(range(count))).letters
    assert some is not None
    values = pa.array([random.bytes(240_000 if n < count // 4 else 2_000) for n in range(count)])
    return some.set_column(some.schema.get_field_index("value"), some.schema.field("value"), values)


def written(site: LakeSite, declaration: TableDeclaration, rows: pa.Table) -> tuple[ParquetFormat, Sequence[str]]:
    """The rows in files, each with rows from everywhere."""
    for field, value in zip(COMMIT_FIELDS, ("c" * 36, 0), strict=True):
        if field.name in declaration.schema.names:
            rows = rows.append_column(field, pa.repeat(pa.scalar(value, field.type), rows.num_rows))
    form = ParquetFormat(site.stranger(declaration.name), declaration)
    names = [str(site.settings.home / f"{number}.parquet") for number in range(FILES)]
    for number, name in enumerate(names):
        (part,) = form.slices(rows.take(pa.array(np.arange(number, rows.num_rows, FILES))))
        form.write(site.stranger().io, name, part)
    return form, names


@pytest.mark.parametrize("share", [1.05, 0.55], ids=["in memory", "from runs"])
@pytest.mark.parametrize("what", ["trades", "letters"])
def test_a_merge_takes_no_more_than_half_as_much_again(tmp_path: Path, what: str, share: float) -> None:
    """Of what it may hold: neither a column nor a row group is copied whole while all rows are there."""
    site = LakeSite(tmp_path)
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 4, letters=[3])), soon())
    worker.take_outbox(soon())
    declaration, rows = (TRADES_TABLE, many_trades(site)) if what == "trades" else (DEAD_LETTERS, large_letters(site))
    form, files = written(site, declaration, rows)
    memory_bytes = int(rows.nbytes * share)
    with counted() as pool:
        offsets = [g["offset"].to_numpy() for g in sorted_groups(site.io, files, form, memory_bytes=memory_bytes, spill=tmp_path)]
    assert pool.max_memory() < 1.5 * memory_bytes
    assert sorted(np.concatenate(offsets)) == list(range(rows.num_rows))
