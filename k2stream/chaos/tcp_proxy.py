"""A wire between a worker and a service that can be cut, held up, or lose one answer: for Redis and SQL catalogs.

For HTTP see http_proxy.py, which knows requests.
"""

import socket
import threading
from contextlib import suppress
from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16


class TcpProxy:
    """Forwards connections to one server; safe to use from any thread."""

    def __init__(self, target: str) -> None:
        """`target`: `host:port`."""
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        """What a client is given instead of the target."""
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self._lose_after = b""
        self.lost = 0
        """Answers that were kept back."""
        self._thread = threading.Thread(target=self._accept, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self, *, for_good: bool = True) -> None:
        """Cut every connection; with `for_good` new ones are cut too, until `mend`."""
        self._is_cut = for_good
        with self._lock:
            links = list(self._links)
        for link in links:
            _shut(link)

    def mend(self) -> None:
        """Forward again."""
        self._is_cut = False
        self._lose_after = b""

    def lose_answer_after(self, request: bytes) -> None:
        """The next request that holds these bytes reaches the server; its answer does not come back, the connection is cut."""
        self._lose_after = request

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._link, args=(client,), name="tcp-proxy-link", daemon=True).start()

    def _link(self, client: socket.socket) -> None:
        if self._is_cut:
            client.close()
            return
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        link = _Link(self, client, server)
        with self._lock:
            self._links |= {client, server}
        back = threading.Thread(target=link.back, name="tcp-proxy-back", daemon=True)
        back.start()
        link.forth()
        back.join()
        with self._lock:
            self._links -= {client, server}
        client.close()
        server.close()

    def takes_away(self, request: bytes) -> bool:
        """True for the one request whose answer is to be lost."""
        with self._lock:
            if not self._lose_after or self._lose_after not in request:
                return False
            self._lose_after = b""
            self.lost += 1
            return True


class _Link:
    """One client's connection."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._is_losing = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def forth(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(CHUNK_BYTES):
                self._is_losing = self._is_losing or self._proxy.takes_away(data)
                self._server.sendall(data)
        _shut(self._server)

    def back(self) -> None:
        with suppress(OSError):
            while (data := self._server.recv(CHUNK_BYTES)) and not self._is_losing:
                self._client.sendall(data)
        _shut(self._client)
        _shut(self._server)


def _shut(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
