"""The worker's own pages beside Faust's: /state, /healthz, /livez and /metrics."""

from typing import Any

import orjson
from faust.web import Request, Response, View

from k2stream import metrics
from k2stream.app import K2App

PAGES = ("/state", "/healthz", "/livez", "/metrics")
"""Every page k2stream adds to the worker's web server."""


def add_pages(app: K2App) -> None:
    """Serve PAGES; web/guard.py asks for K2_WEB_KEY."""

    @app.page("/state", name="state")
    async def state(view: View, request: Request) -> Response:
        return _json(view, app.report())

    @app.page("/healthz", name="healthz")
    async def healthz(view: View, request: Request) -> Response:
        health = app.health
        return _json(view, {"ok": health.is_green(), "causes": health.causes()}, status=200 if health.is_green() else 503)

    @app.page("/livez", name="livez")
    async def livez(view: View, request: Request) -> Response:
        return _json(view, {"ok": True})  # the loop turns: a service that is gone is no reason to start the worker anew

    @app.page("/metrics", name="metrics")
    async def metrics_page(view: View, request: Request) -> Response:
        metrics.show_health(app.health.causes())
        return view.bytes(metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _json(view: View, value: Any, *, status: int = 200) -> Response:  # any JSON value
    return view.bytes(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), content_type="application/json", status=status)
