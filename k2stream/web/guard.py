"""K2_WEB_KEY: with it set, every page of the worker, Faust's own included, asks for it."""

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HEADER = "X-API-Key"
BEARER = "Bearer "
"""Of an Authorization header, for clients that can send no other: Prometheus."""

OPEN_PAGES = ("/healthz", "/livez")
"""What a load balancer asks without a key."""


def require_key(pages: web.Application, key: str) -> None:
    """Guard every route of `pages`, also those that are added later and those that do not exist; no key, no guard."""
    if key:
        pages.middlewares.append(_guard(key))


def _guard(key: str) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(HEADER) or request.headers.get("Authorization", "").removeprefix(BEARER)
        if request.path in OPEN_PAGES or hmac.compare_digest(key.encode(), given.encode(errors="surrogateescape")):
            return await handler(request)
        return web.json_response({"error": f"{HEADER} is missing or wrong"}, status=401)

    return guard
