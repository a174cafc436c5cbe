"""Disks that are full, missing or not ours: one plain sentence that names what, where and what to do."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2stream.errors import LakeError
from k2stream.lake.table import RowsLake
from tests.integration.disk_site import fill
from tests.integration.lake_site import TP, LakeSite, soon, window

ROOT = Path(__file__).parents[2]
ONE_SENTENCE = re.compile(r"^Cannot [^\n]+ at [^\n]+: [^\n]+\.$")


def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of these options, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "k2test", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    yield from mounted(tmp_path / "small", "size=2m")


def test_a_full_disk_stops_the_commit_and_loses_nothing(small_disk: Path) -> None:
    """The sentence says to free space; once somebody did, the same worker goes on and plain PyIceberg reads it all."""
    site = LakeSite(small_disk)
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3)), soon())
    hog = fill(small_disk)
    with pytest.raises(LakeError, match=r"the disk is full\. Free some space") as caught:
        worker.commit(worker.write(window(2, 3, 2000)), soon(0.5))
    assert ONE_SENTENCE.match(str(caught.value))
    assert str(small_disk) in str(caught.value) or "market_data.trades" in str(caught.value)
    hog.unlink()
    worker.commit(worker.write(window(2, 3, 6)), soon())
    assert site.offsets() == [0, 1, 2, 3, 4, 5]


def test_a_disk_that_fills_between_files_and_catalog_loses_nothing(small_disk: Path) -> None:
    """Step 1 fitted, the manifests do not: the same files are committed later."""
    site = LakeSite(small_disk)
    worker = site.started()
    staged = worker.write(window(1, 0, 3))
    hog = fill(small_disk)
    with pytest.raises(LakeError) as caught:
        worker.commit(staged, soon(0.5))
    assert "disk is full" in str(caught.value) or "disk reports an error" in str(caught.value)
    hog.unlink()
    worker.commit(staged, soon())
    assert site.offsets() == [0, 1, 2]
    assert site.snapshots("window") == 1


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    """What the operating system says of a disk mounted for reading only, with the variables that name another place."""
    for folder in mounted(tmp_path / "disk", "size=4m"):
        worker = LakeSite(tmp_path / "home", warehouse=str(folder)).started()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(LakeError, match=r"read-only\. Mount it for writing, or name another place with K2_HOME or K2_WAREHOUSE") as caught:
            worker.write(window(1, 0, 3))
        assert ONE_SENTENCE.match(str(caught.value))
        assert str(folder) in str(caught.value)


def test_a_warehouse_that_this_user_may_not_write_is_named(tmp_path: Path) -> None:
    """Files may be neither made nor guessed at: the folder is named, and the right that is missing. As a user, not root."""
    site = LakeSite(tmp_path)
    worker = site.started()
    folder = site.settings.home_path("warehouse", "market_data", "trades", "data", "timestamp_day=2014-03-09", "exchange=ASX")
    folder.mkdir(parents=True)
    with Forbidden(folder), pytest.raises(LakeError, match=r"this user may not write there\. Give it the right") as caught:
        worker.write(window(1, 0, 3))
    assert ONE_SENTENCE.match(str(caught.value))
    assert str(folder) in str(caught.value)


class Forbidden:
    """A folder that nobody may write to: by its mode, or for root, whom modes do not stop, by the immutable flag."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        if os.geteuid() != 0:
            self._folder.chmod(0o500)
        elif subprocess.run(["chattr", "+i", str(self._folder)], capture_output=True).returncode:
            pytest.skip("root, and the file system knows no immutable flag")

    def __exit__(self, *_: object) -> None:
        if os.geteuid() != 0:
            self._folder.chmod(0o700)
        else:
            subprocess.run(["chattr", "-i", str(self._folder)], check=True)


def test_a_file_where_the_warehouse_should_be_is_named(tmp_path: Path) -> None:
    """K2_WAREHOUSE names a file by mistake."""
    warehouse = tmp_path / "warehouse-file"
    warehouse.write_text("not a folder")
    with pytest.raises(LakeError) as caught:
        LakeSite(tmp_path / "home", warehouse=str(warehouse)).worker()
    assert ONE_SENTENCE.match(str(caught.value))
    assert "is not a folder" in str(caught.value)
    assert str(warehouse) in str(caught.value)


def test_a_catalog_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Somebody's file lies at K2_HOME/catalog.db: it is not touched."""
    site = LakeSite(tmp_path)
    catalog = site.settings.home_path("catalog.db")
    catalog.write_bytes(b"somebody's letters, not a database. " * 100)
    with pytest.raises(LakeError) as caught:
        site.worker()
    assert ONE_SENTENCE.match(str(caught.value))
    assert "catalog.db" in str(caught.value)
    assert catalog.read_bytes() == b"somebody's letters, not a database. " * 100


def test_a_warehouse_that_was_removed_by_hand_is_named(tmp_path: Path) -> None:
    """The catalog names metadata that is gone: say so, and which file."""
    site = LakeSite(tmp_path)
    worker = site.started()
    metadata = Path(worker.load().metadata_location)
    metadata.unlink()
    with pytest.raises(LakeError, match="does not exist") as caught:
        worker.head()
    assert ONE_SENTENCE.match(str(caught.value))
    assert metadata.name in str(caught.value)


def test_a_row_that_breaks_the_schema_is_refused_before_the_catalog_hears_of_it(tmp_path: Path) -> None:
    """A null in a required column would make a file that no reader accepts."""
    site = LakeSite(tmp_path)
    worker: RowsLake = site.started()
    broken = window(1, 0, 2)
    place = broken.rows.schema.get_field_index("symbol")
    rows = broken.rows.set_column(place, "symbol", [["BHP", None]])
    with pytest.raises(LakeError):
        worker.write(type(broken)(1, rows, broken.events, broken.deltas, broken.spans))
    assert worker.head().vector[TP].next == 0
