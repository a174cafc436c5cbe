"""A database of the user's Redis that was empty and is this run's own: it may be wiped."""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import redis

from k2stream.errors import SettingsError, StateError
from k2stream.settings import Settings

DATABASES = range(15, 0, -1)
"""Where to look for an empty one; never 0, which is everybody's."""


@dataclass(frozen=True, slots=True)
class RedisDatabase:
    """One database, by its URL."""

    url: str
    password: str
    ca_file: str

    def wipe(self) -> int:
        """FLUSHDB; how many keys there were. Raises StateError if Redis does not answer."""
        try:
            with self._client() as client:
                keys = int(client.dbsize())
                client.flushdb()
                return keys
        except (redis.RedisError, OSError) as exc:
            raise StateError(f"Redis did not wipe database {urlsplit(self.url).path}: {exc}") from exc

    def is_empty(self) -> bool:
        with self._client() as client:
            return int(client.dbsize()) == 0

    def _client(self) -> redis.Redis:
        options = {"ssl_ca_certs": self.ca_file} if self.ca_file else {}
        return redis.Redis.from_url(self.url, password=self.password or None, **options)


def empty_database(settings: Settings) -> RedisDatabase:
    """The highest database without a key; raises SettingsError if there is none, StateError if Redis does not answer."""
    parts = urlsplit(settings.redis_url)
    try:
        for number in DATABASES:
            url = urlunsplit(parts._replace(path=f"/{number}"))
            found = RedisDatabase(url, settings.redis_password.get_secret_value(), settings.redis_ca_file)
            if found.is_empty():
                return found
    except (redis.RedisError, OSError) as exc:
        raise StateError(f"Redis has no database for a chaos run: {exc}. Start it, or allow databases 1 to 15.") from exc
    raise SettingsError("Redis has no empty database among 1 to 15, and chaos wipes its own. Empty one, or set K2_REDIS_URL to another server.")
