"""The worker's own pages beside Faust's: see PAGES."""

from collections.abc import Mapping
from typing import Any, cast

import orjson
from faust.web import Request, Response, View

from k2stream import metrics
from k2stream.app import K2App
from k2stream.deadletter.reasons import REASONS
from k2stream.instruments.lookup import Instrument, is_listed, key_of

PAGES = ("/state", "/healthz", "/livez", "/metrics", "/instruments", "/reasons")
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

    @app.page("/instruments", name="instruments")
    async def instruments(view: View, request: Request) -> Response:
        live = cast("Mapping[str, Instrument]", app.tables["instruments"])
        exchange, symbol = request.query.get("exchange", ""), request.query.get("symbol", "")
        if not symbol:
            listed = sum(is_listed(row) for row in live.values())
            return _json(view, {"listed": listed, "delisted": len(live) - listed})
        key = key_of(exchange, symbol)
        if key not in live:  # get() would give the table's default
            return _json(view, {"error": f"no instrument {symbol!r} of {exchange!r}"}, status=404)
        return _json(view, live[key])

    @app.page("/reasons", name="reasons")
    async def reasons(view: View, request: Request) -> Response:
        return _json(view, {reason.value: known._asdict() for reason, known in REASONS.items()})

    @app.page("/livez", name="livez")
    async def livez(view: View, request: Request) -> Response:
        return _json(view, {"ok": True})  # the loop turns: a service that is gone is no reason to start the worker anew

    @app.page("/metrics", name="metrics")
    async def metrics_page(view: View, request: Request) -> Response:
        metrics.show_health(app.health.causes())
        return view.bytes(metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _json(view: View, value: Any, *, status: int = 200) -> Response:  # any JSON value
    return view.bytes(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), content_type="application/json", status=status)
