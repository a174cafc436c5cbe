"""The workers' way to each service, through proxies of this run: what is broken there is broken for them alone."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from k2stream.chaos.http_proxy import HttpProxy
from k2stream.chaos.servers import addresses
from k2stream.chaos.tcp_proxy import TcpProxy
from k2stream.object_store import ObjectStore
from k2stream.settings import Settings

NO_TLS = "its connection is encrypted, so a proxy before it would not be trusted"


@dataclass(slots=True)
class Detours:
    """The proxies there are, and the variables that lead workers to them."""

    redis: TcpProxy | None = None
    sql: TcpProxy | None = None
    rest: HttpProxy | None = None
    s3: HttpProxy | None = None
    registry: HttpProxy | None = None
    environment: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    """Service -> why there is none before it."""

    @classmethod
    def before(cls, settings: Settings, stack: ExitStack) -> Self:
        """A proxy before every service that the settings name and that speaks plainly; closed with `stack`."""
        detours, where = cls(), addresses(settings)
        if "redis" in where and settings.redis_url.startswith("redis://"):
            detours.redis = stack.enter_context(TcpProxy(where["redis"]))
            detours.environment["K2_REDIS_URL"] = moved(settings.redis_url, detours.redis.address)
        detours._catalog(settings, where, stack)
        if "s3" in where and (endpoint := ObjectStore.of(settings).endpoint).startswith("http://"):
            detours.s3 = stack.enter_context(HttpProxy(endpoint))
            detours.environment["K2_S3_ENDPOINT"] = detours.s3.url
        if "registry" in where and settings.registry_url.startswith("http://"):
            detours.registry = stack.enter_context(HttpProxy(settings.registry_url))
            detours.environment["K2_REGISTRY_URL"] = detours.registry.url
        detours.lacking = detours._lacking(where)
        return detours

    def _catalog(self, settings: Settings, where: Mapping[str, str], stack: ExitStack) -> None:
        if "catalog" not in where:
            return
        if settings.catalog_uri.startswith("http://"):
            self.rest = stack.enter_context(HttpProxy(settings.catalog_uri))
            self.environment["K2_CATALOG_URI"] = self.rest.url
        elif not settings.catalog_uri.startswith("https://"):
            self.sql = stack.enter_context(TcpProxy(where["catalog"]))
            self.environment["K2_CATALOG_URI"] = moved(settings.catalog_uri, self.sql.address)

    def _lacking(self, where: Mapping[str, str]) -> dict[str, str]:
        there = {"redis": self.redis, "catalog": self.sql or self.rest, "s3": self.s3, "registry": self.registry}
        return {name: NO_TLS if name in where else "the settings name none" for name, proxy in there.items() if proxy is None}


def moved(url: str, address: str) -> str:
    """The same URL at another `host:port`."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{address}" if user else address))
