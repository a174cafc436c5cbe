"""The tables there are, and every file below one's location, wherever that is: its name as the table would write it, its size and its age."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from pyarrow.fs import FileInfo, FileSelector
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from k2stream.errors import LakeError
from k2stream.lake.file_io import local_path
from k2stream.lake.head import name_of
from k2stream.lake.trouble import translated
from k2stream.settings import Settings


class Found(NamedTuple):
    """A file as its store lists it."""

    location: str
    size_bytes: int
    changed_at_us: int
    """By the store's clock, microseconds since the epoch; the moment of listing where the store does not say."""


def tables_of(catalog: Catalog, settings: Settings) -> list[str]:
    """Names of the tables in the settings' namespace, none before the first worker; raises LakeError if the catalog does not answer."""
    with translated("list the tables", settings.namespace), suppress(NoSuchNamespaceError):
        return sorted(name[-1] for name in catalog.list_tables(settings.namespace))
    return []


def files_below(table: Table, *, now_us: int) -> list[Found]:
    """All files below the table's location; raises LakeError if the store does not list them."""
    location = table.location().rstrip("/")
    with translated("list the files", location):
        return list(_on_disk(location) if local_path(location) is not None else _in_store(table, location, now_us))


def plain(location: str) -> str:
    """One spelling for each file, so that two names of it compare equal."""
    path = local_path(location)
    return location if path is None else os.path.normpath(path)


def _on_disk(location: str) -> Iterator[Found]:
    root = local_path(location)
    assert root is not None
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted meanwhile
            yield Found(f"{location}/{os.path.relpath(path, root)}", status.st_size, status.st_mtime_ns // 1000)


def _in_store(table: Table, location: str, now_us: int) -> Iterator[Found]:
    if not isinstance(table.io, PyArrowFileIO):
        raise LakeError(f"{name_of(table)} lies at {location}, whose files cannot be listed: expected a folder or s3://.")
    parts = urlsplit(location)
    root = parts.netloc + parts.path
    store = table.io.fs_by_scheme(parts.scheme, parts.netloc)
    for file in store.get_file_info(FileSelector(root, recursive=True)):
        if file.is_file:
            yield found_of(file, location + file.path.removeprefix(root), now_us=now_us)


def found_of(file: FileInfo, location: str, *, now_us: int) -> Found:
    """A file as a store's listing says it is; one without a time is taken for new, so that nothing is deleted for its age."""
    return Found(location, file.size, now_us if file.mtime_ns is None else file.mtime_ns // 1000)
