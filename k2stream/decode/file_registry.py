"""The schema registry of one machine: a file in a folder."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k2stream.decode.compatibility import Version, require_compatible
from k2stream.errors import RegistryError, RegistryUnavailable
from k2stream.rows import AvroSchema


class FileRegistry:
    """Schemas in one file of a folder, for one machine; any number of processes may read and register.

    A writer holds the folder's lock, writes a new file next to the old one, syncs it and renames it over: a reader, or a
    crash at any moment, sees the old file or the new one. Ids start at 1 and are never given again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path / "schemas.json"
        self._known: dict[int, AvroSchema] = {}
        self._read_as: tuple[int, int] | None = None
        """Inode and time of the file that `_known` was read from: unknown ids cost one stat."""

    def ping(self) -> None:
        """A folder always answers."""

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The schema's id, the same for ever and for every subject.

        Raises RegistryError if it cannot read what the subject's newest wrote, RegistryUnavailable if the disk fails.
        """
        with self._translated(), self._locked():
            state = self._read()
            same = (int(known) for known, text in state["schemas"].items() if text == schema)
            schema_id = next(same, len(state["schemas"]) + 1)
            versions = state["subjects"].setdefault(subject, [])
            if schema_id not in versions:
                if versions:
                    require_compatible(subject, schema, _versions(state, subject))
                state["schemas"][str(schema_id)] = schema
                versions.append(schema_id)
                self._write(state)
        return schema_id

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        with self._translated():
            return sorted(self._read()["subjects"])

    def versions(self, subject: str) -> list[Version]:
        """Versions of a subject, oldest first; none if there is no such subject."""
        with self._translated():
            return _versions(self._read(), subject)

    def refusals(self, subject: str, schema: AvroSchema) -> list[str]:
        """What a registry itself has against a schema as next version: this one has no opinion of its own."""
        return []

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id; None if nobody registered it yet."""
        if schema_id not in self._known:
            with self._translated():
                self._refresh()
        return self._known.get(schema_id)

    def _refresh(self) -> None:
        found = self._file.stat() if self._file.exists() else None
        written_as = (found.st_ino, found.st_mtime_ns) if found else None
        if written_as != self._read_as:
            self._known = {int(known): schema for known, schema in self._read()["schemas"].items()}
            self._read_as = written_as

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"schemas": {}, "subjects": {}}
        except ValueError as exc:
            raise RegistryError(f"{self._file} is not JSON ({exc}); restore it from a backup.") from exc
        return state

    def _write(self, state: dict[str, Any]) -> None:
        handle, name = tempfile.mkstemp(dir=self._path, prefix=".schemas-")  # mode 600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise RegistryUnavailable(f"The schemas under {self._path} cannot be read or written: {exc}") from exc


def _versions(state: dict[str, Any], subject: str) -> list[Version]:
    ids = state["subjects"].get(subject, [])
    return [Version(number, schema_id, state["schemas"][str(schema_id)]) for number, schema_id in enumerate(ids, start=1)]
