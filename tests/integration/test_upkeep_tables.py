"""Every table that grows is kept healthy, whoever writes it: merged, its snapshots and unnamed files let go, and retention has a word for it."""

import asyncio
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyiceberg.manifest import DataFile

import tables.lake
from k2stream import metrics
from k2stream.deadletter.trail import REPLAYS, Act, Writer, began, trail_rows, word
from k2stream.lake import file_io
from k2stream.lake.catalog import open_table
from k2stream.lake.commit import Addition, Committer
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.file_io import local_path
from k2stream.lake.head import Head, head_or_start
from k2stream.lake.journal import Journal
from k2stream.lake.listing import plain
from k2stream.lake.merge import GROUP_BYTES, PIECE_BYTES, fitting
from k2stream.lake.orphans import named_by
from k2stream.lake.parquet import ParquetFormat
from k2stream.lake.retention import KEPT_WHOLE
from k2stream.lake.writer import data_folder
from k2stream.upkeep.child import run_upkeep
from k2stream.upkeep.tasks import run_all
from tests.integration.conftest import Place
from tests.integration.lake_site import LakeSite, soon, window
from tests.integration.test_upkeep import later
from tests.integration.test_upkeep_kills import COMPACT_STEPS, killed_at
from tests.integration.upkeep_site import upkeep_of

FILES, ROWS = 8, 3
BY = Writer("r1", "somebody@somewhere")
NOW_US = 1_700_000_000_000_000

MODULES = [importlib.import_module(f"tables.lake.{module.name}") for module in pkgutil.iter_modules(tables.lake.__path__)]
DECLARED = {said.name: said for module in MODULES for said in vars(module).values() if isinstance(said, TableDeclaration)}


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **{"snapshots_kept": 5, **place})


def value_of(kind: pa.DataType, number: int) -> Any:
    """Something of that type, another one for each number."""
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, number)]
    if pa.types.is_struct(kind):
        return {part.name: value_of(part.type, number) for part in kind}
    if pa.types.is_map(kind):
        return [("k", f"v{number}")]
    if pa.types.is_timestamp(kind):
        return datetime(2014, 3, 10, 0, 0, number, tzinfo=UTC)
    if pa.types.is_decimal(kind):
        return Decimal(number)
    plain_values: Mapping[str, Any] = {"string": f"v{number}", "binary": b"\xff%d" % number, "bool": bool(number % 2), "double": number / 8}
    return plain_values.get(str(kind), number)


def some_rows(declaration: TableDeclaration, numbers: Sequence[int]) -> pa.Table:
    columns = {f.name: [value_of(f.type, n) for n in numbers] for f in declaration.schema}
    columns |= {name: ["ASX"] * len(numbers) for name in declaration.partition_by}
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in declaration.schema], schema=declaration.schema)


def grown(site: LakeSite, declaration: TableDeclaration) -> None:
    """The table in small files, one a commit."""
    catalog = upkeep_of(site).catalog
    table = open_table(catalog, site.settings, declaration)
    form = ParquetFormat(table, replace(declaration, buckets=None)) if declaration.buckets is None else None
    committer = Committer(catalog, (site.settings.namespace, declaration.name), worker_id="w", on_step=lambda _: None, read_head=head_or_start)
    for number in range(FILES if form else 0):
        assert form is not None
        rows = some_rows(declaration, range(number * ROWS, number * ROWS + ROWS))
        files = [form.write(table.io, f"{data_folder(table)}/{uuid4()}.parquet", part) for part in form.slices(rows)]
        committer.apply(partial(adding, files), commit_id=str(uuid4()), deadline=soon())


def adding(files: Sequence[DataFile], head: Head) -> Addition:
    return Addition(head.carried, files=files)


def files_of(site: LakeSite, name: str) -> list[str]:
    return [task.file.file_path for task in site.stranger(name).scan().plan_files()]


def said_rows(site: LakeSite, name: str) -> list[str]:
    return sorted(map(str, site.rows(name).to_pylist()))


def test_every_table_is_merged_and_nothing_is_left_of_it_but_what_it_names(tmp_path: Path) -> None:
    """A table that somebody declares and upkeep passes over would grow by a file a second; only `instruments`, whose writer replaces files, may."""
    site = LakeSite(tmp_path, snapshots_kept=5)
    grow = {name: said for name, said in DECLARED.items() if said.buckets is None}
    assert DECLARED.keys() - grow.keys() == {"instruments"}
    for declaration in DECLARED.values():
        grown(site, declaration)
    before = {name: said_rows(site, name) for name in grow}
    reports = run_all(upkeep_of(site), site.settings)
    assert {r.table: r.counts["files_before"] for r in reports if r.task == "compact"} == dict.fromkeys(grow, FILES) | {"instruments": 0}
    for days in (10.0, 10.1):
        upkeep = later(site, days)
        assert [upkeep.expire(name).trouble or upkeep.orphans(name).trouble for name in DECLARED] == [None] * len(DECLARED)
    for name in grow:
        assert len(files_of(site, name)) == 1
        assert said_rows(site, name) == before[name]
        assert len(site.stranger(name).metadata.snapshots) <= 3
        named = {plain(file) for file in named_by(site.stranger(name))}
        assert {str(path) for path in site.files(name) if path.parent.name != "upkeep"} == named


def test_retention_has_a_word_for_every_table(tmp_path: Path) -> None:
    """One that is cut by day can be kept for a time; of any other somebody has said why it is kept whole."""
    site = LakeSite(tmp_path)
    assert {name for name, said in DECLARED.items() if said.day_of is None} <= KEPT_WHOLE.keys() <= DECLARED.keys()
    upkeep = upkeep_of(site)
    for declaration in DECLARED.values():
        open_table(upkeep.catalog, site.settings, declaration)
    said = {name: upkeep.keep(name).says for name in DECLARED}
    whole = {name: KEPT_WHOLE[name] for name, declared in DECLARED.items() if declared.day_of is None}
    assert said == {name: [f"kept for ever: {whole.get(name, 'K2_KEEP_DAYS does not name it')}"] for name in DECLARED}


def trail(site: LakeSite, first: int, end: int) -> None:
    """What a replay writes down, a file a second."""
    with Journal(site.settings, REPLAYS, catalog=upkeep_of(site).catalog) as journal:
        for n in range(first, end):
            said = began(BY, NOW_US + n, selection="all", ends={("t", 0): n})
            journal.append(trail_rows([said, word(BY, NOW_US + n, Act.EDITED, f"t/0/{n}", key=None, value=b"\xff\x00")]))


def test_a_trail_that_is_merged_under_kills_says_what_it_said(tmp_path: Path) -> None:
    """`k2 upkeep compact` dies at each of its steps in turn while a replay goes on: attempts that are forgotten would be made again."""
    site = LakeSite(tmp_path, snapshots_kept=5)
    trail(site, 0, 4)
    for number, step in enumerate(step for step in COMPACT_STEPS if step != "compact.3.head"):
        before = said_rows(site, "replays")
        killed_at(step, site, "compact", "--table", "replays")
        assert said_rows(site, "replays") == before
        trail(site, 4 + number, 5 + number)
    assert len(files_of(site, "replays")) == 2  # the last one died after its swap
    assert upkeep_of(site).compact("replays", is_whole=True).counts["files_after"] == 1
    assert site.rows("replays")["first_origin"].drop_null().to_pylist() == [f"t/0/{n}" for n in range(8)]


def test_a_replay_that_writes_during_the_swap_loses_nothing(site: LakeSite) -> None:
    """Its row lands between the look at the head and the swap: the swap is made again on the head that has it."""
    trail(site, 0, 8)
    late = iter([8])

    def write_on(step: str) -> None:
        for number in late if step == "compact.3.before" else ():
            trail(site, number, number + 1)

    report = upkeep_of(site, on_step=write_on).compact("replays", is_whole=True)
    assert (report.trouble, report.counts["files_before"]) == (None, 8)
    assert len(said_rows(site, "replays")) == 18


def test_history_of_somebody_else_keeps_no_trail_from_being_merged(site: LakeSite) -> None:
    """It has no vector to lose, and `k2 adopt` has none to make."""
    trail(site, 0, 8)
    table = site.stranger("replays")
    table.append(table.scan().to_arrow().slice(0, 0))
    table.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in table.metadata.snapshots[:-1]]).commit()
    report = upkeep_of(site).compact("replays", is_whole=True)
    assert (report.trouble, report.counts["files_before"]) == (None, 8)
    trail(site, 8, 9)
    assert len(said_rows(site, "replays")) == 18


def test_a_power_cut_after_an_append_loses_no_file_that_the_table_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name is in its folder, which is synced before the catalog speaks: contents alone would be found by nobody."""
    synced, sync = list[Path](), file_io.sync_folder
    monkeypatch.setattr(file_io, "sync_folder", lambda folder: (synced.append(folder), sync(folder)))
    site = LakeSite(tmp_path)
    site.settings = site.settings.model_copy(update={"fsync": True})
    trail(site, 0, 1)
    (file,) = files_of(site, "replays")
    path = local_path(file)
    assert path is not None
    data, metadata = (max(i for i, folder in enumerate(synced) if folder == wanted) for wanted in (path.parent, path.parents[1] / "metadata"))
    assert data < metadata


def test_a_leader_shows_what_its_tables_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As upkeep left them: a table whose files only climb is seen before its queries are slow."""
    trail(LakeSite(tmp_path), 0, 8)
    monkeypatch.setenv("K2_HOME", str(tmp_path))
    monkeypatch.setenv("K2_FSYNC", "false")
    found = asyncio.run(run_upkeep())
    assert found is not None
    assert found["led"]
    assert metrics.REGISTRY.get_sample_value("k2_table_files", {"table": "replays"}) == 1
    assert metrics.REGISTRY.get_sample_value("k2_upkeep_done_total", {"task": "compact", "what": "files_before"}) >= 8


def test_large_letters_are_merged_in_groups_that_memory_holds(tmp_path: Path) -> None:
    """65,536 letters of half a megabyte are no row group: a group is bounded by what it takes, or nobody could read the merged file."""
    site = LakeSite(tmp_path, upkeep_memory_bytes=32 << 20)
    worker = site.started()
    size, each = 1 << 20, 12
    for number in range(8):
        offsets = list(range(number * each, number * each + each))
        letters = window(number, offsets[0], offsets[-1] + 1, letters=offsets)
        assert letters.letters is not None
        at = letters.letters.schema.get_field_index("value")
        values = pa.array([bytes([o]) * size for o in offsets], pa.binary())
        worker.commit(worker.write(replace(letters, letters=letters.letters.set_column(at, letters.letters.schema.field(at), values))), soon())
        worker.take_outbox(soon())
    report = upkeep_of(site).compact("dead_letters", is_whole=True)
    assert (report.trouble, report.counts["files_after"]) == (None, 1)
    (file,) = files_of(site, "dead_letters")
    footer, rows = site.parquet(file)
    assert max(footer.row_group(i).num_rows for i in range(footer.num_row_groups)) * size <= GROUP_BYTES
    assert rows["value"].to_pylist() == [bytes([o]) * size for o in range(8 * each)]


def test_a_row_that_is_larger_than_the_bound_is_a_piece_of_its_own() -> None:
    """It has to go somewhere, and nothing may wait for it for ever."""
    rows = pa.table({"value": [b"x" * PIECE_BYTES, b"y" * PIECE_BYTES, b"", b""]})
    assert [fitting(rows.slice(first), 3, PIECE_BYTES - 1) for first in range(4)] == [1, 1, 2, 1]
