"""The proxy that plays faults: what it says it did is what client and server saw."""

import http.client
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from k2stream.chaos.http_proxy import Effect, Fault, HttpProxy

AFTER = (Effect.LOST_REPLY, Effect.ERROR_AFTER)
INSTEAD = (Effect.RESET, Effect.ERROR_INSTEAD)


class Store(ThreadingHTTPServer):
    """Keeps what is written to it, by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Keeper)
        self.kept: dict[str, bytes] = {}


class Keeper(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_PUT(self) -> None:
        self.server.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._say(200, b"kept")

    def do_GET(self) -> None:
        found = self.server.kept.get(self.path)
        self._say(404 if found is None else 200, found or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _say(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(store: Store) -> Iterator[HttpProxy]:
    with HttpProxy(f"http://127.0.0.1:{store.server_port}") as proxy:
        yield proxy


def put(proxy: HttpProxy, path: str, body: bytes = b"x") -> int | None:
    """Status of a write; None if no answer came."""
    request = urllib.request.Request(proxy.url + path, body, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code
    except (OSError, http.client.HTTPException):
        return None


def test_what_meets_no_fault_passes_unchanged(store: Store, proxy: HttpProxy) -> None:
    """Bodies, statuses, lengths of HEAD and a connection used twice are those of the server."""
    body = bytes(range(256)) * 1000
    assert put(proxy, "/a?b=c", body) == 200
    assert store.kept == {"/a?b=c": body}
    link = http.client.HTTPConnection(*proxy._server.server_address)
    for method, path, status, length, content in (
        ("GET", "/a?b=c", 200, len(body), body),
        ("HEAD", "/a?b=c", 200, len(body), b""),
        ("GET", "/no", 404, 0, b""),
    ):
        link.request(method, path)
        answer = link.getresponse()
        assert (answer.status, int(answer.headers["Content-Length"]), answer.read()) == (status, length, content)
    link.close()


def test_a_body_in_chunks_is_forwarded_whole(store: Store, proxy: HttpProxy) -> None:
    """A client that does not know the length beforehand is served like any other."""
    link = http.client.HTTPConnection(*proxy._server.server_address)
    link.request("PUT", "/a", body=iter([b"one", b"two"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert link.getresponse().read() == b"kept"
    link.close()
    assert store.kept == {"/a": b"onetwo"}


@pytest.mark.parametrize("effect", [*AFTER, *INSTEAD])
def test_faults_land_or_do_not_as_they_say(store: Store, proxy: HttpProxy, effect: Effect) -> None:
    """After: the server did it. Instead: it never heard of it. The client cannot tell them apart."""
    proxy.inject(Fault(effect, method="PUT", status=502))
    answer = put(proxy, "/a")
    assert answer == (502 if effect in (Effect.ERROR_AFTER, Effect.ERROR_INSTEAD) else None)
    assert ("/a" in store.kept) == (effect in AFTER)
    assert put(proxy, "/b") == 200
    assert [(s.effect, s.upstream_status) for s in proxy.seen] == [(effect, 200 if effect in AFTER else None), (None, 200)]


def test_a_fault_hits_the_nth_match_so_often_and_no_other(proxy: HttpProxy) -> None:
    """Other methods and paths pass and are not counted."""
    proxy.inject(Fault(Effect.ERROR_INSTEAD, method="PUT", path="/tables/", nth=2, times=2))
    assert [put(proxy, path) for path in ("/tables/a", "/other", "/tables/a", "/tables/b", "/tables/a")] == [200, 200, 500, 500, 200]
    assert proxy.hits == 2
    proxy.clear()
    assert put(proxy, "/tables/a") == 200


def test_drawn_faults_are_the_same_for_one_seed(proxy: HttpProxy) -> None:
    """A run with probabilities can be repeated."""
    runs = []
    for seed in (1, 1, 2):
        proxy.inject(Fault(Effect.ERROR_INSTEAD, times=0, probability=0.5, seed=seed))
        runs.append([put(proxy, "/a") for _ in range(12)])
        proxy.clear()
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {200, 500}


def test_a_server_that_is_gone_is_no_answer(store: Store, proxy: HttpProxy) -> None:
    """The proxy adds no answer of its own; on another port the server is found again."""
    proxy.retarget("http://127.0.0.1:1")
    assert put(proxy, "/a") is None
    proxy.retarget(f"http://127.0.0.1:{store.server_port}")
    assert put(proxy, "/a") == 200


def test_a_fault_is_written_in_one_line() -> None:
    """The form of the command line; a wrong word is named."""
    read = Fault.parse("error_after method=POST path=/tables/ nth=2 times=0 probability=0.5 seed=7 status=504 delay_ms=20")
    assert read == Fault(Effect.ERROR_AFTER, "POST", "/tables/", 2, 0, 0.5, 7, 504, 20)
    for wrong in ("explode", "reset colour=red", "reset nth=x"):
        with pytest.raises(ValueError, match=r"explode|colour|x"):
            Fault.parse(wrong)


def test_it_runs_as_a_process_of_its_own(store: Store) -> None:
    """Faults come by argument and by line; it ends with its input."""
    command = [sys.executable, "-m", "k2stream.chaos.http_proxy", f"http://127.0.0.1:{store.server_port}", "reset"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        statuses = []
        for path in ("/a", "/b"):
            with (
                suppress(OSError, http.client.HTTPException),
                urllib.request.urlopen(urllib.request.Request(url + path, b"x", method="PUT"), timeout=5) as answer,
            ):
                statuses.append(answer.status)
        process.stdin.close()
        assert process.wait(10) == 0
    assert statuses == [200]
    assert list(store.kept) == ["/b"]
