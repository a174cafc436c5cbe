"""Files of the tables: on the local disk durable and the user's alone, on S3 whole or not there, elsewhere as PyIceberg does it.

The catalog speaks last. What it is going to name must be on the disk by then, or a power cut leaves a table whose
newest metadata is an empty file; hence each local file is synced when it is closed, and its folder with the last one.
"""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pyarrow.fs import FileSystem
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO

from k2stream.lake.s3 import s3_filesystem

FSYNC = "k2.fsync"
"""Catalog property: `false` leaves files to the operating system, for benchmarks only."""

FILE_MODE, FOLDER_MODE = 0o600, 0o700


def local_path(location: str) -> Path | None:
    """Path of a location on this machine's disk; None for object stores."""
    if location.startswith("file:"):
        return Path("/" + location.removeprefix("file:").lstrip("/"))
    return None if "://" in location else Path(location)


def make_folder(folder: Path) -> None:
    """Make a folder and what is above it, for this user alone."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders_of(store: FileIO, locations: Iterable[str]) -> None:
    """Make the names of new files last, as their contents do: of local files, unless K2_FSYNC is off."""
    if store.properties.get(FSYNC, "true") != "false":
        for folder in {path.parent for location in locations if (path := local_path(location)) is not None}:
            sync_folder(folder)


def open_for_writing(path: Path) -> io.FileIO:
    """Open an empty file of mode 600; its folder is made where it is missing."""
    make_folder(path.parent)
    return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb")


class SyncedWriter(io.BufferedWriter):
    """A buffered file that is on the disk once `close` returned."""

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.flush()
            os.fsync(self.fileno())
        finally:
            super().close()


class LocalFile(InputFile, OutputFile):
    """One file on this machine's disk."""

    def __init__(self, location: str, path: Path, *, is_synced: bool) -> None:
        super().__init__(location)
        self._path = path
        self._is_synced = is_synced

    def __len__(self) -> int:
        return self._path.stat().st_size

    def exists(self) -> bool:
        return self._path.exists()

    def open(self, seekable: bool = True) -> InputStream:
        """A stream to read from; raises FileNotFoundError or PermissionError."""
        return cast(InputStream, self._path.open("rb"))

    def create(self, overwrite: bool = False) -> OutputStream:
        """A stream to write to; raises FileExistsError if the file is there and `overwrite` is False."""
        if not overwrite and self.exists():
            raise FileExistsError(f"Cannot create file, already exists: {self.location}")
        raw = open_for_writing(self._path)
        if not self._is_synced:
            return cast(OutputStream, io.BufferedWriter(raw))
        if self._path.name.endswith(".metadata.json"):  # the last file before the catalog speaks
            sync_folder(self._path.parent)
        return cast(OutputStream, SyncedWriter(raw))

    def to_input_file(self) -> "LocalFile":
        return self


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's file access with local files made by `LocalFile`."""

    def new_input(self, location: str) -> InputFile:  # type: ignore[override]  # the base promises its own class
        return super().new_input(location) if (path := local_path(location)) is None else self._local(location, path)

    def new_output(self, location: str) -> OutputFile:  # type: ignore[override]  # the base promises its own class
        return super().new_output(location) if (path := local_path(location)) is None else self._local(location, path)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file; raises FileNotFoundError or PermissionError."""
        name = location if isinstance(location, str) else location.location
        path = local_path(name)
        if path is None:
            super().delete(location)
        else:
            path.unlink()

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        """Asked by the base class for `s3://`; the stream of a file raises on `close` unless the store has all of it."""
        return s3_filesystem(self.properties, netloc or "")

    def _local(self, location: str, path: Path) -> LocalFile:
        return LocalFile(location, path, is_synced=self.properties.get(FSYNC, "true") != "false")
