"""An HTTP proxy that plays faults: in front of a REST catalog, an S3 store or a schema registry.

    with HttpProxy("http://127.0.0.1:8181") as proxy:
        proxy.inject(Fault(Effect.LOST_REPLY, method="POST", path="/tables/trades"))
        ...  # a client of proxy.url: its commit lands, and it hears nothing

As a process: `python -m k2stream.chaos.http_proxy TARGET [FAULT]...` prints its URL and then takes a fault a line, such as
`lost_reply method=POST path=/tables/ nth=2`, or `clear`; it ends with its input.
"""

import random
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
UPSTREAM_SECONDS = 60.0
REMEMBERED = 10_000
"""Requests that `seen` keeps."""

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect", "content-length"})
"""Headers of one connection, which the proxy says for itself."""


class Effect(StrEnum):
    """What happens to a request that a fault hits."""

    LOST_REPLY = "lost_reply"
    """Forwarded; its answer never comes back, the connection closes."""
    RESET = "reset"
    """Not forwarded; the connection is reset."""
    ERROR_AFTER = "error_after"
    """Forwarded; the client hears `status` instead of the answer."""
    ERROR_INSTEAD = "error_instead"
    """Not forwarded; the client hears `status`."""
    DELAY = "delay"
    """Forwarded after `delay_ms`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: which requests are hit, and what happens to them."""

    effect: Effect
    method: str = ""
    """Empty: any."""
    path: str = ""
    """A part of path and query; empty: any."""
    nth: int = 1
    """The first matching request that may be hit, counted from 1."""
    times: int = 1
    """How many are hit; 0: all until `clear`."""
    probability: float = 1.0
    """Of each; drawn from `seed`, so that a run can be repeated."""
    seed: int = 0
    status: int = 500
    delay_ms: int = 0
    """Before anything else happens, whatever the effect."""

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """From `effect name=value...`; raises ValueError that names what is wrong."""
        effect, *words = text.split()
        given = dict(word.partition("=")[::2] for word in words)
        types = {field.name: field.type for field in fields(cls) if field.name != "effect"}
        if unknown := sorted(given.keys() - types.keys()):
            raise ValueError(f"a fault has no {', '.join(unknown)}; it has {', '.join(types)}")
        return cls(Effect(effect), **{name: types[name](value) for name, value in given.items()})  # type: ignore[operator] # str, int and float read text

    def concerns(self, method: str, path: str) -> bool:
        """True if a request of this method and path counts."""
        return self.method in ("", method) and self.path in path


class _Armed:
    """A fault and how often it has matched and hit."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.matched, self.hit = fault, 0, 0
        self._dice = random.Random(fault.seed)  # noqa: S311 # a run must be repeatable

    def takes(self, method: str, path: str) -> bool:
        fault = self.fault
        if not fault.concerns(method, path) or (fault.times and self.hit >= fault.times):
            return False
        self.matched += 1
        if self.matched < fault.nth or self._dice.random() >= fault.probability:
            return False
        self.hit += 1
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as the proxy handled it."""

    method: str
    path: str
    effect: Effect | None
    upstream_status: int | None
    """What the target answered; None if it was not asked or did not answer."""


class HttpProxy:
    """Forwards every request to one server, on a thread each, and plays faults; safe to use from any thread."""

    def __init__(self, target: str, *, port: int = 0) -> None:
        """`target` is an `http://host:port` URL; `port` 0: any free one."""
        parts = urlsplit(target)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the target of a proxy is an http:// URL, found {target!r}")
        self._target = (parts.hostname, parts.port or 80)
        self._server = _Server((HOST, port), self)
        self.url = f"http://{HOST}:{self._server.server_port}{parts.path}"
        """What a client is given instead of the target."""
        self.seen: deque[Seen] = deque(maxlen=REMEMBERED)
        """The newest requests, oldest first."""
        self._faults: list[_Armed] = []
        self._lock = Lock()
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="http-proxy", daemon=True)

    def inject(self, *faults: Fault) -> None:
        """Play these from now on; of several that match one request the first is played."""
        with self._lock:
            self._faults += [_Armed(fault) for fault in faults]

    def clear(self) -> None:
        """Play nothing any more."""
        with self._lock:
            self._faults = []

    @property
    def hits(self) -> int:
        """How many requests the faults in force have hit."""
        with self._lock:
            return sum(armed.hit for armed in self._faults)

    def count(self, method: str, path: str = "") -> int:
        """Requests seen with this method and part of a path."""
        return sum(seen.method == method and path in seen.path for seen in list(self.seen))

    def retarget(self, target: str) -> None:
        """Forward to another server from now on: one that came back on another port."""
        parts = urlsplit(target)
        self._target = (str(parts.hostname), parts.port or 80)

    def start(self) -> None:
        """Serve until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and cut every connection."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.cut_all()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, counted as played."""
        with self._lock:
            return next((armed.fault for armed in self._faults if armed.takes(method, path)), None)

    def forward(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> "Reply":
        """The target's answer, read whole; raises OSError or HTTPException if there is none."""
        link = HTTPConnection(*self._target, timeout=UPSTREAM_SECONDS)
        try:
            link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                link.putheader(name, value)
            if body or method in ("POST", "PUT", "PATCH"):
                link.putheader("Content-Length", str(len(body)))
            link.endheaders(body)
            answer = link.getresponse()
            return Reply(answer.status, answer.reason, answer.getheaders(), answer.read())
        finally:
            link.close()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way back."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], proxy: HttpProxy) -> None:
        self.proxy = proxy
        self._links: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override] # TCP only
        with self._lock:
            self._links.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override] # TCP only
        with self._lock:
            self._links.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        with self._lock:
            for link in self._links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _relay(self) -> None:
        proxy, body = self.server.proxy, self._body()
        fault = proxy.fault_for(self.command, self.path)
        effect = fault.effect if fault else None
        if fault is not None:
            time.sleep(fault.delay_ms / 1000)
        reply = None
        if effect not in (Effect.RESET, Effect.ERROR_INSTEAD):
            headers = [(n, v) for n, v in self.headers.items() if n.lower() not in HOP_BY_HOP]
            with suppress(OSError, HTTPException):
                reply = proxy.forward(self.command, self.path, headers, body)
        proxy.seen.append(Seen(self.command, self.path, effect, reply.status if reply else None))
        if fault is not None and effect in (Effect.ERROR_AFTER, Effect.ERROR_INSTEAD):
            reply = Reply(fault.status, "", [("Content-Type", "text/plain")], b"played by the proxy")
        if reply is None or effect is Effect.LOST_REPLY:
            self._cut(is_reset=effect is Effect.RESET)
        else:
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        self.send_response_only(reply.status, reply.reason or None)
        has_length = False
        for name, value in reply.headers:
            is_length = name.lower() == "content-length"
            has_length |= is_length
            if name.lower() not in HOP_BY_HOP or (is_length and self.command == "HEAD"):
                self.send_header(name, value)
        if not (self.command == "HEAD" and has_length) and reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _cut(self, *, is_reset: bool) -> None:
        if is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _relay

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: `seen` has it."""


def main(arguments: list[str]) -> None:
    """Serve until standard input ends; a fault a line."""
    target, *faults = arguments
    with HttpProxy(target) as proxy:
        proxy.inject(*map(Fault.parse, faults))
        sys.stdout.write(f"{proxy.url}\n")
        sys.stdout.flush()
        for line in filter(None, map(str.strip, sys.stdin)):
            if line == "clear":
                proxy.clear()
            else:
                proxy.inject(Fault.parse(line))


if __name__ == "__main__":
    main(sys.argv[1:])
