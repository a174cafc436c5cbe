"""The state store that the settings ask for."""

import ssl
from urllib.parse import urlsplit

import structlog

from k2stream.address import without_password
from k2stream.errors import SettingsError, StateError
from k2stream.settings import Settings
from k2stream.state.memory import MemoryStore
from k2stream.state.redis import RedisStore
from k2stream.state.server import start_server
from k2stream.state.store import StateStore
from k2stream.state.turn import RedisTurn

log = structlog.get_logger(__name__)


def open_store(settings: Settings) -> StateStore:
    """Redis at K2_REDIS_URL, else a server started here, else this process's memory, with a line that says so.

    Raises SettingsError if K2_REDIS_URL, K2_REDIS_CA_FILE or K2_REDIS_SERVER cannot be meant. A Redis that is away is no obstacle: state may lag.
    """
    if settings.state == "memory":
        return MemoryStore()
    if settings.redis_url:
        return _named(settings)
    try:
        server = start_server(settings)
    except (StateError, OSError) as exc:
        return _in_memory(str(exc))
    if server is None:
        return _in_memory("no redis-server or valkey-server was found")
    return RedisStore(server.url, app_id=settings.app_id, on_lost=server.ensure_running, on_close=server.close)


def turn_of(store: StateStore, settings: Settings) -> RedisTurn | None:
    """Who gives turns to commit; None where every worker's store is its own, as that of the one worker of an embedded log."""
    return RedisTurn(store.evaluate, settings.app_id) if settings.redis_url and isinstance(store, RedisStore) else None


def _named(settings: Settings) -> RedisStore:
    url, ca_file = settings.redis_url, settings.redis_ca_file
    scheme = urlsplit(url).scheme
    if scheme not in ("redis", "rediss", "unix"):
        raise SettingsError(f"K2_REDIS_URL={without_password(url)}: expected redis://host:port/0, rediss://host:port/0 (TLS) or unix:///path.")
    if ca_file and scheme != "rediss":
        raise SettingsError("K2_REDIS_CA_FILE is set, but K2_REDIS_URL does not begin with rediss://, so nothing would be encrypted.")
    try:
        ssl.create_default_context(cafile=ca_file or None)
        return RedisStore(url, app_id=settings.app_id, password=settings.redis_password.get_secret_value(), ca_file=ca_file)
    except OSError as exc:  # ssl.SSLError is one too
        raise SettingsError(f"K2_REDIS_CA_FILE={ca_file} holds no certificates ({exc}). Name a file of PEM certificates, or unset it.") from exc
    except ValueError as exc:
        raise SettingsError(f"K2_REDIS_URL={without_password(url)} is not understood: {exc}.") from exc


def _in_memory(cause: str) -> MemoryStore:
    log.warning("state.in_memory", cause=cause, then="state is rebuilt from the tables at every start; every promise holds")
    return MemoryStore()
