"""What a store's listing says of a file."""

from pyarrow.fs import FileInfo, FileType

from k2stream.lake.listing import Found, found_of

NOW_US = 1_700_000_000_000_000


def test_a_file_of_which_the_store_gives_no_time_is_new() -> None:
    """Taken for one of 1970 it would be past every safety age, and a worker's open window an orphan to delete."""
    assert found_of(FileInfo("b/x.parquet", FileType.File, size=3), "s3://b/x.parquet", now_us=NOW_US) == Found("s3://b/x.parquet", 3, NOW_US)


def test_a_file_has_the_time_that_the_store_gives() -> None:
    """In microseconds, as all times."""
    old = FileInfo("b/x.parquet", FileType.File, size=3, mtime_ns=1_000_000_000)
    assert found_of(old, "s3://b/x.parquet", now_us=NOW_US).changed_at_us == 1_000_000
