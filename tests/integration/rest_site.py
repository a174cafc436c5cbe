"""Venues' REST endpoints of trades on loopback, over TLS: they play what was traded and misbehave as told."""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from aiohttp import web

from k2stream.dev.certificate import Certificate
from k2stream.feed.frame import Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Fault:
    """What the venue does with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    """Sent instead of trades, where it is not empty."""
    is_shuffled: bool = False
    trades: int | None = None
    """Only so many of the page, the first as the venue counts."""
    is_cut: bool = False
    """The connection ends in the middle."""


@dataclass(slots=True)
class RestVenue:
    """All three endpoints; the nth request meets the nth fault."""

    traded: Mapping[str, Sequence[Row]]
    """Rows by symbol, in order of their numbers."""
    absent: Collection[int] = ()
    """Numbers that it does not have."""
    faults: Mapping[int, Fault] = field(default_factory=dict)
    page_trades: int = 1000
    newest: int = 1000
    key: str = ""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Paths with their queries."""

    def kept(self, symbol: str) -> list[Row]:
        return [row for row in self.traded.get(symbol, ()) if row["source_sequence"] not in self.absent]

    async def binance_newest(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, [binance_trade(r) for r in self.kept(request.query["symbol"])[-self.newest :]], list)

    async def binance(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-MBX-APIKEY") != self.key:
            self.asked.append(request.path_qs)
            return web.json_response({"code": -2015, "msg": "Invalid API-key"}, status=401)
        first = int(request.query["fromId"])
        rows = [r for r in self.kept(request.query["symbol"]) if r["source_sequence"] >= first]
        return await self._answer(request, [binance_trade(r) for r in rows[: self.page_trades]], list)

    async def coinbase(self, request: web.Request) -> web.StreamResponse:
        symbol = request.match_info["symbol"]
        if symbol not in self.traded:
            self.asked.append(request.path_qs)
            return web.json_response({"message": "NotFound"}, status=404)
        rows = [r for r in self.kept(symbol) if r["source_sequence"] < int(request.query["after"])]
        return await self._answer(request, [_coinbase(r) for r in rows[::-1][: self.page_trades]], list)

    async def kraken(self, request: web.Request) -> web.StreamResponse:
        since_ns = int(request.query["since"])
        (symbol,) = (s for s in self.traded if s.replace("/", "").replace("BTC", "XBT") == request.query["pair"])
        rows = [r for r in self.kept(symbol) if r["timestamp"] * 1000 > since_ns][: self.page_trades]
        last = str(rows[-1]["timestamp"] * 1000 if rows else since_ns)
        return await self._answer(request, [_kraken(r) for r in rows], lambda trades: {"error": [], "result": {"XXBTZUSD": trades, "last": last}})

    async def _answer(self, request: web.Request, trades: list[object], wrapped: Callable[[list[object]], object]) -> web.StreamResponse:
        fault = self.faults.get(len(self.asked), Fault())
        self.asked.append(request.path_qs)
        if fault.is_shuffled:
            Random(1).shuffle(trades)
        body = fault.body or json.dumps(wrapped(trades[: fault.trades]))
        if not fault.is_cut:
            return web.Response(status=fault.status, headers=fault.headers, text=body)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2].encode())
        if request.transport is not None:
            request.transport.abort()
        return response


def binance_trade(row: Row) -> dict[str, object]:
    return {
        "id": row["source_sequence"],
        "price": str(row["price"]),
        "qty": str(row["quantity"]),
        "quoteQty": str(row["price"] * row["quantity"]),
        "time": row["timestamp"] // 1000,
        "isBuyerMaker": row["side"] == "SELL",
        "isBestMatch": True,
    }


def _coinbase(row: Row) -> dict[str, object]:
    time = (EPOCH + timedelta(microseconds=row["timestamp"])).isoformat().replace("+00:00", "Z")
    maker = "sell" if row["side"] == "BUY" else "buy"
    return {"trade_id": row["source_sequence"], "side": maker, "size": str(row["quantity"]), "price": str(row["price"]), "time": time}


def _kraken(row: Row) -> list[object]:
    return [str(row["price"]), str(row["quantity"]), row["timestamp"] / 1e6, row["side"][0].lower(), "m", "", row["source_sequence"]]


@asynccontextmanager
async def answering(venue: RestVenue, certificate: Certificate) -> AsyncIterator[RestVenue]:
    """The venue on a free port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    app = web.Application()
    app.router.add_get("/api/v3/trades", venue.binance_newest)
    app.router.add_get("/api/v3/historicalTrades", venue.binance)
    app.router.add_get("/products/{symbol}/trades", venue.coinbase)
    app.router.add_get("/0/public/Trades", venue.kraken)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    venue.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield venue
    finally:
        await runner.cleanup()
