"""Schema registries: one id a schema whoever registers, outages are not unknown ids."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k2stream.decode.registry import UNKNOWN_PER_SECOND, FileRegistry, HttpRegistry
from k2stream.errors import RegistryError, RegistryUnavailable
from k2stream.rows import avro_schema

REGISTER = """
import sys
from pathlib import Path
from k2stream.decode.registry import FileRegistry
sys.stdin.read()
print([FileRegistry(Path(sys.argv[1])).register("same", {"type": "record", "name": f"R{i}", "fields": []}) for i in range(20)])
"""


def test_two_processes_registering_at_once_get_the_same_ids(tmp_path: Path) -> None:
    """A race for one subject gives no id twice and no schema two ids."""
    argv = [sys.executable, "-c", REGISTER, str(tmp_path / "schemas")]
    racers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert [str(list(range(1, 21)))] * 2 == answers


def test_a_registered_schema_is_read_by_others(tmp_path: Path) -> None:
    """A reader that was open before the registration finds the schema; other ids stay unknown."""
    reader, writer = FileRegistry(tmp_path / "s"), FileRegistry(tmp_path / "s")
    assert reader.schema(1) is None
    schema_id = writer.register("trades", avro_schema("trade_v2"))
    assert schema_id == writer.register("other", avro_schema("trade_v2"))
    assert avro_schema("trade_v2") == reader.schema(schema_id)
    assert reader.schema(99) is None


def test_nobody_else_may_read_the_folder(tmp_path: Path) -> None:
    """Folder and files belong to the user alone."""
    FileRegistry(tmp_path / "s").register("trades", avro_schema("trade_v2"))
    modes = {p.name: p.stat().st_mode & 0o777 for p in [tmp_path / "s", *(tmp_path / "s").iterdir()]}
    assert modes == {"s": 0o700, "schemas.json": 0o600, ".lock": 0o600}


def test_a_broken_file_is_no_unknown_id(tmp_path: Path) -> None:
    """Damage on disk stops decode; it never turns good records into dead letters."""
    (tmp_path / "schemas.json").write_text("{")
    with pytest.raises(RegistryError):
        FileRegistry(tmp_path).schema(1)


class Server(ThreadingHTTPServer):
    """A registry that knows id 1 and counts what it is asked."""

    asked = 0
    status = 200


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        knows = self.path.endswith("/1")
        body = json.dumps({"schema": json.dumps(avro_schema("trade_v2"))} if knows else {"error_code": 40403}).encode()
        self.send_response(self.server.status if knows or self.server.status != 200 else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def registry_of(server: Server, times: list[float]) -> HttpRegistry:
    return HttpRegistry(f"http://127.0.0.1:{server.server_address[1]}", monotonic=lambda: times[0])


def test_a_known_id_is_asked_once(server: Server) -> None:
    """A schema never changes under its id, so one question is enough."""
    registry = registry_of(server, [0.0])
    assert [avro_schema("trade_v2")] * 2 == [registry.schema(1), registry.schema(1)]
    assert server.asked == 1


def test_an_unknown_id_is_asked_again_after_a_minute(server: Server) -> None:
    """Unknown is remembered, but not for ever: it may be registered meanwhile."""
    times = [0.0]
    registry = registry_of(server, times)
    for times[0] in (0.0, 59.0, 61.0):
        assert registry.schema(7) is None
    assert server.asked == 2


def test_random_ids_do_not_flood_the_registry(server: Server) -> None:
    """A second sees at most so many questions, the next second goes on."""
    times = [0.0]
    registry = registry_of(server, times)
    assert {None} == {registry.schema(i) for i in range(100, 150)}
    assert server.asked == UNKNOWN_PER_SECOND
    times[0] = 1.0
    assert avro_schema("trade_v2") == registry.schema(1)


def test_an_outage_is_no_unknown_id(server: Server) -> None:
    """An error answer, and no answer at all, mean: ask again."""
    server.status = 503
    with pytest.raises(RegistryUnavailable):
        registry_of(server, [0.0]).schema(1)
    with pytest.raises(RegistryUnavailable):
        HttpRegistry("http://127.0.0.1:1").schema(1)


class ReadOnly(Handler):
    """Knows the schema under every subject, and lets nobody set a level."""

    level = "BACKWARD"

    def do_GET(self) -> None:
        self._say(200, {"compatibilityLevel": self.level})

    def do_PUT(self) -> None:
        self._drain()
        self._say(403, {"error_code": 40301, "message": "read only"})

    def do_POST(self) -> None:
        self._drain()
        self._say(200, {"subject": "s", "id": 7, "version": 1, "schema": json.dumps(avro_schema("trade_v2"))})

    def _drain(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))

    def _say(self, status: int, body: dict[str, object]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def test_a_user_who_may_not_set_the_level_needs_it_set(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that others govern is used as long as it is guarded; unguarded it is refused, with what to do."""
    server.RequestHandlerClass = ReadOnly
    assert registry_of(server, [0.0]).register("s", avro_schema("trade_v2")) == 7
    monkeypatch.setattr(ReadOnly, "level", "NONE")
    with pytest.raises(RegistryError, match=r"subject s at compatibility NONE.*Set it to BACKWARD"):
        registry_of(server, [0.0]).register("s", avro_schema("trade_v2"))


class Strict(ReadOnly):
    """A subject of two versions, the older of which stands against whatever comes."""

    def do_GET(self) -> None:
        self._say(200, [2, 1])

    def do_POST(self) -> None:
        self._drain()
        is_old = self.path.split("?")[0].endswith("/versions/1")
        self._say(200, {"is_compatible": False, "messages": ["field fee came back as text"]} if is_old else {"is_compatible": True})


def test_the_registry_is_asked_of_every_version_and_its_words_are_told() -> None:
    """A level of its own may refuse what ours lets pass: its reason comes with the number of the version."""
    with Server(("127.0.0.1", 0), Strict) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = registry_of(server, [0.0]).refusals("s", avro_schema("trade_v2"))
        finally:
            server.shutdown()
            thread.join()
    assert found == ["the registry says of version 1: field fee came back as text"]
