"""A TCP proxy that cuts connections: in front of a database, a broker or a cache, whose protocols it need not know.

with TcpProxy("127.0.0.1:5432") as proxy:
    proxy.cut_at(b"COMMIT", is_forwarded=True)
    ...  # a client of proxy.address: its transaction is committed, and it hears nothing
"""

import selectors
import socket
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
LOOK_SECONDS = 0.05
REPLY_SECONDS = 1.0
"""How long the server's answer to what was forwarded is awaited before the cut: then it has acted."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A rule: the connection whose client sends `words` is cut."""

    words: bytes
    is_forwarded: bool
    """True: the server hears them, and its answer is lost. False: it does not."""


class TcpProxy:
    """Passes bytes both ways, a thread for each connection, until a rule or `refuse` cuts them."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`."""
        self.retarget(target)
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(LOOK_SECONDS)
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        """What a client is given instead of the target."""
        self.cuts = 0
        """Connections that a rule has cut."""
        self._rules: list[Cut] = []
        self._lock, self._is_over, self._is_refusing = Lock(), Event(), Event()
        self._threads: list[Thread] = [Thread(target=self._accept, name="tcp-proxy", daemon=True)]

    def cut_at(self, words: bytes, *, is_forwarded: bool) -> None:
        """Cut the next connection whose client sends `words`, once."""
        with self._lock:
            self._rules.append(Cut(words, is_forwarded))

    def retarget(self, target: str) -> None:
        """Pass new connections to another server: one that came back on another port."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    def refuse(self) -> None:
        """The server is gone: cut every connection, and each new one at once."""
        self._is_refusing.set()

    def admit(self) -> None:
        """It is back."""
        self._is_refusing.clear()

    def start(self) -> None:
        """Serve until `close`."""
        self._threads[0].start()

    def close(self) -> None:
        """Cut everything and stop."""
        self._is_over.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._is_over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._is_refusing.is_set():
                client.close()
                continue
            thread = Thread(target=self._serve, args=(client,), name="tcp-proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target, timeout=5) as server:
            for link in (client, server):
                link.settimeout(None)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while not (self._is_over.is_set() or self._is_refusing.is_set()):
                for key, _ in ready.select(LOOK_SECONDS):
                    link, other = key.fileobj, key.data
                    assert isinstance(link, socket.socket)
                    said = link.recv(CHUNK_BYTES)
                    rule = self._rule_for(said) if link is client else None
                    if not said or (rule is not None and self._cut(rule, said, server)):
                        return
                    other.sendall(said)

    def _rule_for(self, said: bytes) -> Cut | None:
        with self._lock:
            rule = next((rule for rule in self._rules if rule.words in said), None)
            if rule is not None:
                self._rules.remove(rule)
                self.cuts += 1
            return rule

    def _cut(self, rule: Cut, said: bytes, server: socket.socket) -> bool:
        if rule.is_forwarded:
            server.sendall(said)
            server.settimeout(REPLY_SECONDS)
            server.recv(CHUNK_BYTES)  # it answered, so it has done it
        return True
