"""The worker's own pages beside Faust's: /state, /healthz and /metrics."""

import hmac
from typing import Any

import orjson
from faust.web import Request, Response, View

from k2stream import metrics
from k2stream.app import K2App

PAGES = ("/state", "/healthz", "/metrics")
"""Every page k2stream adds to the worker's web server."""


def add_pages(app: K2App) -> None:
    """Serve PAGES; with K2_WEB_KEY set, all but /healthz ask for it in X-API-Key."""

    @app.page("/state", name="state")
    async def state(view: View, request: Request) -> Response:
        return _guarded(app, view, request) or _json(view, app.report())

    @app.page("/healthz", name="healthz")
    async def healthz(view: View, request: Request) -> Response:
        health = app.health
        return _json(view, {"ok": health.is_green(), "causes": health.causes()}, status=200 if health.is_green() else 503)

    @app.page("/metrics", name="metrics")
    async def metrics_page(view: View, request: Request) -> Response:
        return _guarded(app, view, request) or view.bytes(metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _guarded(app: K2App, view: View, request: Request) -> Response | None:
    key = app.settings.web_key
    given = request.headers.get("X-API-Key", "")
    if key and not hmac.compare_digest(key.encode(), given.encode()):
        return _json(view, {"error": "X-API-Key is missing or wrong"}, status=401)
    return None


def _json(view: View, value: Any, *, status: int = 200) -> Response:  # any JSON value
    return view.bytes(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), content_type="application/json", status=status)
