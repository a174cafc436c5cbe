"""Iceberg's REST protocol as PyIceberg speaks it, with an end to every request and our own file access.

PyIceberg repeats a request once after 401 and 419, with a new token; a commit repeated so requires the same head, so it lands
once. Nothing else is repeated: requests' adapters retry nothing, not even a request on a connection that had been closed.
"""

from typing import Any

from pyiceberg.catalog.rest import CREDENTIAL, OAUTH2_SERVER_URI, RestCatalog
from pyiceberg.io import FileIO
from pyiceberg.typedef import EMPTY_DICT, Properties
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from k2stream.settings import Settings

CONNECT_SECONDS = 3.0


class AdapterWithEnd(HTTPAdapter):
    """Gives every request a time limit; the library sets none."""

    def __init__(self, seconds: float) -> None:
        super().__init__(max_retries=0)
        self._seconds = seconds

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        options["timeout"] = options.get("timeout") or (CONNECT_SECONDS, self._seconds)
        return super().send(request, *arguments, **options)


class TimedRestCatalog(RestCatalog):
    """A REST catalog that may be asked by a thread with a deadline."""

    def __init__(self, name: str, *, seconds: float, own: Properties, **properties: str) -> None:
        """`own` are properties of file access that no server may change: it names its own language's."""
        self._seconds, self._own = seconds, own
        super().__init__(name, **{**properties, **own})

    def _config_headers(self, session: Session) -> None:
        super()._config_headers(session)  # the first thing that a new session is given, before it asks for a token
        for scheme in ("http://", "https://"):
            session.mount(scheme, AdapterWithEnd(self._seconds))

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return super()._load_file_io({**properties, **self._own}, location)


def rest_properties(settings: Settings, uri: str) -> dict[str, Any]:
    """Address and credentials of a REST catalog; the warehouse is its own unless the settings name one."""
    said = {
        "uri": uri,
        "warehouse": settings.warehouse,
        "token": settings.catalog_token.get_secret_value(),
        CREDENTIAL: settings.catalog_credential.get_secret_value(),
        OAUTH2_SERVER_URI: settings.catalog_oauth_url or f"{uri.rstrip('/')}/v1/oauth/tokens",
        "scope": settings.catalog_scope,
        "ssl": {"cabundle": settings.catalog_ca_file} if settings.catalog_ca_file else None,
    }
    return {name: value for name, value in said.items() if value}
