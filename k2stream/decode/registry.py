"""Schema registries: Avro schemas by number, from a folder of this machine or over HTTP."""

import fcntl
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
from schema_registry.client import SchemaRegistryClient
from schema_registry.client.errors import ClientError

from k2stream.errors import RegistryError, RegistryUnavailable
from k2stream.rows import AvroSchema
from k2stream.settings import Settings

UNKNOWN_SECONDS = 60.0
"""An id that the registry did not know is not asked again so soon."""
UNKNOWN_PER_SECOND = 20
"""After so many unknown ids within a second nothing is asked, or a topic of random bytes floods the registry.
Answers that know their id do not count: they are asked once and kept."""
TIMEOUT_SECONDS = 5.0


class Registry(Protocol):
    """What feeds and decoders ask of a registry."""

    def register(self, subject: str, schema: AvroSchema) -> int: ...
    def schema(self, schema_id: int) -> AvroSchema | None: ...


def open_registry(settings: Settings) -> Registry:
    """The registry that the settings name; does not ask it anything yet."""
    if settings.registry_url:
        return HttpRegistry(settings.registry_url)
    return FileRegistry(settings.home_path("schemas"))


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

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The schema's id, the same for ever and for every subject; raises RegistryUnavailable if the disk fails."""
        with self._translated(), self._locked():
            state = self._read()
            same = (int(known) for known, text in state["schemas"].items() if text == schema)
            schema_id = next(same, len(state["schemas"]) + 1)
            versions = state["subjects"].setdefault(subject, [])
            if schema_id not in versions:
                state["schemas"][str(schema_id)] = schema
                versions.append(schema_id)
                self._write(state)
        return schema_id

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


class HttpRegistry:
    """A schema registry with Confluent's HTTP API; for one thread.

    Whatever is no clear "no such id" is an outage: a registry that is down never makes a dead letter.
    """

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._client = SchemaRegistryClient(url, timeout=httpx.Timeout(TIMEOUT_SECONDS))
        self._monotonic = monotonic
        self._known: dict[int, AvroSchema] = {}
        self._unknown: dict[int, float] = {}
        self._misses: deque[float] = deque(maxlen=UNKNOWN_PER_SECOND)

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The schema's id under this subject; raises RegistryError if the registry refuses it."""
        with self._translated():
            return int(self._client.register(subject, schema))

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id; None if the registry said so within the last minute, or was asked too much just now."""
        if schema_id in self._known:
            return self._known[schema_id]
        now = self._monotonic()
        self._unknown = {known: until for known, until in self._unknown.items() if until > now}
        if schema_id in self._unknown or self._is_flooded(now):
            return None
        return self._ask(schema_id, now)

    def _is_flooded(self, now: float) -> bool:
        return len(self._misses) == UNKNOWN_PER_SECOND and now - self._misses[0] < 1.0

    def _ask(self, schema_id: int, now: float) -> AvroSchema | None:
        with self._translated():
            answer = self._client.get_by_id(schema_id)
        if answer is None:
            self._unknown[schema_id] = now + UNKNOWN_SECONDS
            self._misses.append(now)
            return None
        schema: AvroSchema = answer.raw_schema
        self._known[schema_id] = schema
        return schema

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ClientError as exc:
            kind = RegistryError if exc.http_code in (409, 422) else RegistryUnavailable
            raise kind(f"The schema registry {self._url} answered {exc.http_code}: {exc}") from exc
        except (httpx.HTTPError, ValueError) as exc:  # ValueError: a body that is not JSON, as proxies send
            raise RegistryUnavailable(f"The schema registry {self._url} did not answer: {exc!r}") from exc
