"""The state store that the settings ask for."""

import structlog

from k2stream.errors import StateError
from k2stream.settings import Settings
from k2stream.state.memory import MemoryStore
from k2stream.state.redis import RedisStore
from k2stream.state.server import start_server
from k2stream.state.store import StateStore

log = structlog.get_logger(__name__)


def open_store(settings: Settings) -> StateStore:
    """Redis at K2_REDIS_URL, else a server started here, else this process's memory, with a line that says so.

    Raises SettingsError if K2_REDIS_SERVER names no program. A Redis that is away is no obstacle: state may lag.
    """
    if settings.state == "memory":
        return MemoryStore()
    if settings.redis_url:
        return RedisStore(settings.redis_url, app_id=settings.app_id)
    try:
        server = start_server(settings)
    except (StateError, OSError) as exc:
        return _in_memory(str(exc))
    if server is None:
        return _in_memory("no redis-server or valkey-server was found")
    return RedisStore(server.url, app_id=settings.app_id, on_lost=server.ensure_running, on_close=server.close)


def _in_memory(cause: str) -> MemoryStore:
    log.warning("state.in_memory", cause=cause, then="state is rebuilt from the tables at every start; every promise holds")
    return MemoryStore()
