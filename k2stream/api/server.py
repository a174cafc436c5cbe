"""The REST service: questions over HTTP, read only, each answer with its receipt. Blocking work runs in threads."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from k2stream.answers import Answer, Wanted, bars_by_day, newest_trades
from k2stream.errors import AnswerFailed, K2Error, LakeError, QueryError
from k2stream.lake.reader import TableReader
from k2stream.logs import set_up_logs
from k2stream.moment import moment_of
from k2stream.query.engine import Engine
from k2stream.query.format import as_csv, as_json
from k2stream.settings import Settings
from k2stream.web.guard import require_key
from k2stream.web.port import require_free

log = structlog.get_logger(__name__)

MAX_ROWS = 10_000
"""Rows of one answer; more than these are for Parquet, not for JSON."""
AT_ONCE = 4
"""Questions that run at a time: each may take the engine's memory; the others wait."""
PAGES = ("/v1/trades", "/v1/bars/daily", "/healthz", "/livez")
"""Every page of the service."""
PARAMETERS = ("symbol", "exchange", "start", "end", "limit", "snapshot", "format")

Question = Callable[[TableReader, Engine, Wanted], Answer]


class Desk:
    """Opens tables when they are first asked for, so that the service starts before them and recovers with them."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._engine = settings, Engine.of(settings)
        self._reader: TableReader | None = None
        self._opening = threading.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def ask(self, question: Question, wanted: Wanted) -> Answer:
        """One answer. Raises QueryError, LakeError."""
        async with self._places:
            return await asyncio.to_thread(lambda: question(self._opened(), self._engine, wanted))

    async def ping(self) -> None:
        """Raises LakeError if the table cannot be read."""
        await asyncio.to_thread(lambda: self._opened().load())

    def _opened(self) -> TableReader:
        with self._opening:  # by one thread: of two readers, one would never be closed
            if self._reader is None:
                self._reader = TableReader.open_reader(self._settings, "trades")
            return self._reader

    def close(self) -> None:
        """Give connections and memory back."""
        if self._reader is not None:
            self._reader.close()
        self._engine.close()


def serve(settings: Settings) -> None:
    """Answer until stopped; raises SettingsError if the port is taken."""
    require_free(settings.api_host, settings.api_port)
    set_up_logs(settings)
    log.info("api.listening", host=settings.api_host, port=settings.api_port)
    web.run_app(application(settings), host=settings.api_host, port=settings.api_port, print=None, access_log=None)


def application(settings: Settings) -> web.Application:
    """The service's pages; K2_WEB_KEY guards all but /healthz and /livez."""
    pages = web.Application(middlewares=[_errors])
    desk = Desk(settings)

    async def close(_: web.Application) -> None:
        desk.close()

    def answers(question: Question) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return _said(await desk.ask(question, wanted_of(request.query)), request.query.get("format", "json"))

        return handle

    async def healthz(_: web.Request) -> web.Response:
        await desk.ping()
        return web.json_response({"ok": True})

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    handlers = (answers(newest_trades), answers(bars_by_day), healthz, livez)
    pages.add_routes([web.get(path, handler) for path, handler in zip(PAGES, handlers, strict=True)])
    pages.on_cleanup.append(close)
    require_key(pages, settings.web_key)
    return pages


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors as JSON: 400 for a question that cannot be asked, 503 while tables or their files cannot be read."""
    try:
        return await handler(request)
    except AnswerFailed as exc:
        log.warning("api.no_answer", path=request.path, cause=str(exc))
        return web.json_response({"error": str(exc)}, status=503)
    except QueryError as exc:
        return web.json_response({"error": str(exc)}, status=400)
    except LakeError as exc:
        log.warning("api.no_tables", path=request.path, cause=str(exc))
        return web.json_response({"error": str(exc)}, status=503)
    except K2Error as exc:
        log.error("api.failed", path=request.path, cause=str(exc))
        return web.json_response({"error": str(exc)}, status=500)


def wanted_of(query: Mapping[str, str]) -> Wanted:
    """What a request asks for. Raises QueryError that names the parameter, what was expected and what was found."""
    if unknown := sorted(set(query) - set(PARAMETERS)):
        raise QueryError(f"{', '.join(unknown)}: no such parameter; there are {', '.join(PARAMETERS)}.")
    limit, snapshot = query.get("limit", "100"), query.get("snapshot")
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_ROWS:
        raise QueryError(f"limit={limit}: expected a number from 1 to {MAX_ROWS}.")
    if snapshot is not None and not snapshot.isdecimal():
        raise QueryError(f"snapshot={snapshot}: expected the snapshot_id of a receipt.")
    return Wanted(
        symbol=query.get("symbol"),
        exchange=query.get("exchange"),
        start=moment_of("start", query.get("start")),
        end=moment_of("end", query.get("end")),
        limit=int(limit),
        snapshot_id=None if snapshot is None else int(snapshot),
    )


def _said(answer: Answer, form: str) -> web.Response:
    receipt = json.dumps(answer.receipt.as_json())
    if form == "csv":
        noted = {"X-K2-Note": json.dumps(answer.note)} if answer.note else {}  # in ASCII, as headers are: it names what was asked
        return web.Response(text=as_csv(answer.rows), content_type="text/csv", headers={"X-K2-Receipt": receipt, **noted})
    if form != "json":
        raise QueryError(f"format={form}: expected json or csv.")
    note = f'"note": {json.dumps(answer.note)},\n' if answer.note else ""
    return web.Response(text=f'{{"receipt": {receipt},\n{note}"rows": {as_json(answer.rows)}}}\n', content_type="application/json")
