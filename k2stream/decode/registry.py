"""Schema registries: Avro schemas by number, from a folder of this machine or over HTTP."""

import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import httpx
from fastavro.schema import SchemaParseException
from pydantic import SecretStr
from schema_registry.client import SchemaRegistryClient
from schema_registry.client.errors import ClientError
from schema_registry.client.schema import SchemaFactory
from schema_registry.client.utils import AVRO_SCHEMA_TYPE

from k2stream.decode.compatibility import Version, require_compatible
from k2stream.decode.file_registry import FileRegistry
from k2stream.errors import RegistryError, RegistryUnavailable, SettingsError
from k2stream.rows import AvroSchema
from k2stream.settings import Settings

UNKNOWN_SECONDS = 60.0
"""An id that the registry did not know is not asked again so soon."""
UNKNOWN_PER_SECOND = 20
"""After so many unknown ids within a second nothing is asked, or a topic of random bytes floods the registry.
Answers that know their id do not count: they are asked once and kept."""
TIMEOUT_SECONDS = 5.0

COMPATIBILITY = "BACKWARD"
GUARDED = (COMPATIBILITY, "BACKWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE")
"""Levels under which a new version reads what older ones wrote; a stricter one that somebody chose is left alone."""

NOT_ALLOWED = (401, 403)
NOT_FOUND = 404
NOT_FOUND_CODES = range(40_400, 40_500)
"""How a registry says that it has no such subject, version or schema; another 404 comes from what is not a registry."""

E_URL = "K2_REGISTRY_URL={url}: expected http://host:port or https://host:port."
E_CA_FILE = "K2_REGISTRY_CA_FILE={path} holds no certificates ({cause}). Name a file of PEM certificates, or unset it to trust what this system trusts."
E_TWO_WAYS = "K2_REGISTRY_TOKEN and a user name are both set: a registry takes one of them. Unset the other."
E_NOT_ALLOWED = "The schema registry {url} wants other credentials ({code}). Correct K2_REGISTRY_USER and K2_REGISTRY_PASSWORD, or K2_REGISTRY_TOKEN."
E_REFUSED = "The schema registry {url} refused ({code}): {cause}"
E_AWAY = "The schema registry {url} did not answer: {cause}"
E_UNGUARDED = (
    "The schema registry {url} keeps subject {subject} at compatibility {found}; with that a version could be registered that cannot read "
    "older records. Set it to BACKWARD, or let this user do it."
)


class Registry(Protocol):
    """What feeds and decoders ask of a registry."""

    def ping(self) -> None: ...
    def register(self, subject: str, schema: AvroSchema) -> int: ...
    def schema(self, schema_id: int) -> AvroSchema | None: ...
    def subjects(self) -> list[str]: ...
    def versions(self, subject: str) -> list[Version]: ...
    def refusals(self, subject: str, schema: AvroSchema) -> list[str]: ...


def open_registry(settings: Settings) -> Registry:
    """The registry that the settings name; does not ask it anything yet. Raises SettingsError if they cannot be meant."""
    if not settings.registry_url:
        return FileRegistry(settings.home_path("schemas"))
    url, user, password = _credentials_of(settings)
    if settings.registry_token and user:
        raise SettingsError(E_TWO_WAYS)
    auth = _Bearer(settings.registry_token) if settings.registry_token else httpx.BasicAuth(user, password) if user else None
    return HttpRegistry(url, auth=auth, tls=_trust(settings.registry_ca_file))


def _credentials_of(settings: Settings) -> tuple[str, str, str]:
    """Address without credentials, so that it may be shown; user and password, from the settings or else from the address."""
    parts = urlsplit(settings.registry_url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    if parts.scheme not in ("http", "https") or not shown.netloc:
        raise SettingsError(E_URL.format(url=shown.geturl()))
    password = settings.registry_password.get_secret_value()
    return shown.geturl(), settings.registry_user or unquote(parts.username or ""), password or unquote(parts.password or "")


def _trust(path: str) -> ssl.SSLContext | None:
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as exc:  # ssl.SSLError is one too
        raise SettingsError(E_CA_FILE.format(path=path, cause=exc)) from exc


class _Bearer(httpx.Auth):
    """A token in the Authorization header."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


class _NotAvro(RegistryError):
    """A schema that no record of ours can have been written with."""


class _Client(SchemaRegistryClient):
    """The library's client, with certificates always checked, and a 404 that no registry sent told from one that means "no such schema"."""

    def __init__(self, url: str, *, auth: httpx.Auth | None, tls: ssl.SSLContext | None) -> None:
        super().__init__(url, timeout=httpx.Timeout(TIMEOUT_SECONDS), auth=auth or httpx.Auth())  # without one it sends an empty user
        self.client_kwargs["verify"] = tls or ssl.create_default_context()  # it reads `ca_location` only beside a client's certificate

    @staticmethod
    def _schema_from_result(result: dict[str, Any]) -> Any:
        try:
            found = SchemaFactory.create_schema(result["schema"], result.get("schemaType", AVRO_SCHEMA_TYPE))
        except (ValueError, SchemaParseException) as exc:
            raise _NotAvro(f"the registry's schema is not Avro: {exc}") from exc
        if found.schema_type != AVRO_SCHEMA_TYPE or not isinstance(found.raw_schema, dict):
            raise _NotAvro("the registry's schema is no Avro record")
        return found

    def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        response: httpx.Response = super().request(*arguments, **options)
        if response.status_code == NOT_FOUND and _error_code(response) not in NOT_FOUND_CODES:
            raise ClientError("there is no registry at this address", http_code=NOT_FOUND)
        return response


def _error_code(response: httpx.Response) -> int:
    body = response.json()
    code = body.get("error_code") if isinstance(body, dict) else None
    return code if isinstance(code, int) else 0


class HttpRegistry:
    """A schema registry with Confluent's HTTP API; for one thread.

    Whatever is no clear "no such id" is an outage: a registry that is down never makes a dead letter.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._client = _Client(url, auth=auth, tls=tls)
        self._monotonic = monotonic
        self._ids: dict[tuple[str, str], int] = {}
        self._known: dict[int, AvroSchema] = {}
        self._unknown: dict[int, float] = {}
        self._misses: deque[float] = deque(maxlen=UNKNOWN_PER_SECOND)

    def ping(self) -> None:
        """Returns if the registry answers, and to these credentials; raises RegistryError. May be called from any thread."""
        with self._translated():
            self._client.get_subjects()

    def register(self, subject: str, schema: AvroSchema) -> int:
        """The schema's id under this subject, which is kept at BACKWARD or stricter from here on.

        Raises RegistryError, naming the field, if the schema cannot read what any of the subject's versions wrote.
        """
        known = (subject, json.dumps(schema, sort_keys=True))
        if known not in self._ids:
            with self._translated():
                self._guard(subject)
                if self._client.check_version(subject, schema) is None:
                    require_compatible(subject, schema, self._versions(subject))
                self._ids[known] = int(self._client.register(subject, schema))
        return self._ids[known]

    def _guard(self, subject: str) -> None:
        """Set the subject's own level: the registry's default may be changed by anybody for other reasons."""
        if self._level(subject) in GUARDED[1:]:
            return
        try:
            self._client.update_compatibility(COMPATIBILITY, subject)
        except ClientError as exc:
            if exc.http_code not in NOT_ALLOWED:
                raise
        if (found := self._level(subject)) not in GUARDED:
            raise RegistryError(E_UNGUARDED.format(url=self._url, subject=subject, found=found))

    def _level(self, subject: str) -> str | None:
        try:
            return str(self._client.get_compatibility(subject))
        except ClientError as exc:
            if exc.http_code != NOT_FOUND:
                raise
            return None

    def subjects(self) -> list[str]:
        """All subjects, sorted; raises RegistryError."""
        with self._translated():
            return sorted(self._client.get_subjects())

    def versions(self, subject: str) -> list[Version]:
        """Versions of a subject, oldest first, without those that are no Avro records; none if there is no such subject."""
        with self._translated():
            return self._versions(subject)

    def _versions(self, subject: str) -> list[Version]:
        found = []
        for number in sorted(self._client.get_versions(subject) or ()):
            with suppress(_NotAvro):
                version = self._client.get_schema(subject, number)
                if version is None:  # what it answers for every error
                    raise RegistryUnavailable(E_AWAY.format(url=self._url, cause=f"no version {number} of {subject}"))
                found.append(Version(number, version.schema_id, version.schema.raw_schema))
        return found

    def refusals(self, subject: str, schema: AvroSchema) -> list[str]:
        """What the registry itself has against a schema as next version, asked of every version that there is; raises RegistryError."""
        found: list[str] = []
        with self._translated():
            for number in sorted(self._client.get_versions(subject) or ()):
                answer = self._client.test_compatibility(subject, schema, version=number, verbose=True)
                said: dict[str, Any] = answer if isinstance(answer, dict) else {"is_compatible": answer}
                if not said.get("is_compatible"):
                    messages = said.get("messages") or ["not compatible"]
                    found += [f"the registry says of version {number}: {message}" for message in messages]
        return found

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id; None if the registry said so within the last minute, or was asked too much just now."""
        if schema_id in self._known:
            return self._known[schema_id]
        now = self._monotonic()
        if self._unknown.get(schema_id, now) > now or self._is_flooded(now):
            return None
        return self._ask(schema_id, now)

    def _is_flooded(self, now: float) -> bool:
        return len(self._misses) == UNKNOWN_PER_SECOND and now - self._misses[0] < 1.0

    def _ask(self, schema_id: int, now: float) -> AvroSchema | None:
        with self._translated():
            try:
                answer = self._client.get_by_id(schema_id)
            except _NotAvro:
                answer = None
        if answer is None:
            self._unknown = {known: until for known, until in self._unknown.items() if until > now} | {schema_id: now + UNKNOWN_SECONDS}
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
            raise self._error(exc) from exc
        except (httpx.HTTPError, ValueError) as exc:  # ValueError: a body that is not JSON, as proxies send
            raise RegistryUnavailable(E_AWAY.format(url=self._url, cause=repr(exc))) from exc

    def _error(self, exc: ClientError) -> RegistryError:
        if exc.http_code in NOT_ALLOWED:
            return RegistryUnavailable(E_NOT_ALLOWED.format(url=self._url, code=exc.http_code))
        said = exc.server_traceback.get("message") if isinstance(exc.server_traceback, dict) else None
        kind = RegistryError if exc.http_code in (409, 422) else RegistryUnavailable
        return kind(E_REFUSED.format(url=self._url, code=exc.http_code, cause=said or exc))
