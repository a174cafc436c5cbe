"""One WebSocket connection to a venue, from its handshake to its end; every way it can end is one exception with its cause."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from k2stream.errors import FeedLost
from k2stream.feed.venue import Subscription

OPEN_SECONDS = 10.0
PING_SECONDS = 20.0
"""Our ping, and the wait for its answer: a connection that is open on our side only is lost after 40 s at the latest."""
MAX_FRAME_BYTES = 4 << 20
"""The largest frame of any venue that is read is a snapshot of some 50 kB."""
MAX_FRAMES_AHEAD = 256
"""Frames read ahead; beyond, the socket is not read, and TCP tells the venue."""
ASKED_TO_WAIT = {418: 120.0, 429: 30.0}
"""HTTP status -> seconds to stay away where the answer does not say: 418 is what Binance gives to those who went on after 429."""


def tls_context(*, ca_file: str, verify: bool) -> ssl.SSLContext:
    """What a connection trusts: the system's authorities, or those of `ca_file`; with `verify` false anybody. Raises FeedLost."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as exc:
        raise FeedLost(f"The certificates in {ca_file} (K2_FEED_CA_FILE) cannot be read: {exc}. Expected a file of PEM certificates.") from exc
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def connected(url: str, subscription: Subscription, *, tls: ssl.SSLContext | None, ping_seconds: float = PING_SECONDS) -> AsyncIterator[ClientConnection]:
    """A connection that has asked for its data; closed at the end. Raises FeedLost."""
    address = url.rstrip("/") + subscription.path
    try:
        socket = await connect(
            address,
            ssl=tls if url.startswith("wss://") else None,
            open_timeout=OPEN_SECONDS,
            ping_interval=ping_seconds,
            ping_timeout=ping_seconds,
            close_timeout=1.0,
            max_size=MAX_FRAME_BYTES,
            max_queue=MAX_FRAMES_AHEAD,
        )
    except Exception as exc:
        raise lost(url, exc) from exc
    async with socket:
        for message in subscription.messages:
            await _send(socket, url, message)
        yield socket


async def _send(socket: ClientConnection, url: str, message: bytes) -> None:
    try:
        await socket.send(message, text=True)
    except ConnectionClosed as exc:
        raise lost(url, exc) from exc


async def receive(socket: ClientConnection, url: str) -> bytes:
    """The next frame, its bytes not decoded. Raises FeedLost."""
    try:
        return await socket.recv(decode=False)
    except ConnectionClosed as exc:
        raise lost(url, exc) from exc


def lost(url: str, exc: Exception) -> FeedLost:
    """What ended a connection, in words, and how long the venue wants us to stay away."""
    match exc:
        case ssl.SSLCertVerificationError():
            why = f"its certificate is not trusted ({exc.verify_message}). Is the clock right, or a proxy between? K2_FEED_CA_FILE names other authorities"
        case InvalidStatus():
            return FeedLost(f"{url}: HTTP status {exc.response.status_code} instead of a WebSocket.", retry_after_seconds=_stay_away(exc))
        case ConnectionClosed():
            why = f"the connection ended: {exc}"
        case InvalidURI():
            why = "no address of a WebSocket; expected wss://host[:port]"
        case InvalidHandshake() | OSError() | TimeoutError() | EOFError():
            why = f"no connection: {exc or type(exc).__name__}"
        case _:
            raise exc
    return FeedLost(f"{url}: {why}.")


def _stay_away(exc: InvalidStatus) -> float | None:
    said = exc.response.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else ASKED_TO_WAIT.get(exc.response.status_code)
