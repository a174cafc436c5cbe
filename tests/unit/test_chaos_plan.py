"""What a chaos run may break, where, and what its scorecard says of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from k2stream.chaos.detours import moved
from k2stream.chaos.fault import Fault, Hit
from k2stream.chaos.plan import Plan
from k2stream.chaos.scorecard import Played, Scorecard
from k2stream.chaos.servers import OwnedServer, address_of, addresses, breakable, listener_on
from k2stream.errors import SettingsError
from k2stream.settings import Settings

PLAYED = Played("kill", 2, "worker-1, worker-2", at_seconds=1.0, fault_seconds=0.5, recovered_seconds=7.5, is_good=True)

CARD = Scorecard(
    seed=1, seconds=60, workers=4, partitions=8, published=1000, rows=900, lost=0, extra=0, duplicates_dropped=80, dead_letters=20, gap_events=5,
    snapshots=40, looks=3, played=(PLAYED,), not_played={"disk full": "the warehouse is not a folder of this run"}, deaths=(), events={"window.committed": 39},
)  # fmt: skip


def test_addresses_are_those_that_the_settings_name() -> None:
    """A file is no service, and a default port is a port."""
    settings = Settings(
        broker="k2kafka://broker:9093;k2kafka://other:9093",
        catalog_uri="postgresql+psycopg://user:secret@db/postgres",
        redis_url="redis://:secret@cache:6380/0",
        warehouse="s3://bucket/tables",
        s3_endpoint="http://store:9000",
    )
    assert addresses(settings) == {"kafka": "broker:9093", "catalog": "db:5432", "redis": "cache:6380", "s3": "store:9000"}
    assert addresses(Settings(catalog_uri="sqlite:////tmp/catalog.db")) == {}


def test_a_moved_url_keeps_user_password_and_database() -> None:
    """Only where it leads changes."""
    assert moved("redis://:secret@cache:6380/3", "127.0.0.1:1") == "redis://:secret@127.0.0.1:1/3"
    assert address_of(moved("postgresql+psycopg://k2:secret@db:5432/postgres?sslmode=disable", "127.0.0.1:7")) == "127.0.0.1:7"


def test_what_nobody_owns_is_left_alone(tmp_path: Path) -> None:
    """A service that `k2 dev` did not start is broken only if somebody says that it is theirs, and names one that there is."""
    settings = Settings(home=tmp_path, redis_url="redis://127.0.0.1:1/0")
    assert breakable(settings, ()) == {}
    with pytest.raises(SettingsError, match="--i-own-this kafka"):
        breakable(settings, ("kafka",))
    with pytest.raises(SettingsError, match="no process of yours listens"):
        breakable(settings, ("redis",))


@pytest.mark.skipif(sys.platform != "linux", reason="found through /proc")
def test_an_owned_server_sleeps_and_wakes_up() -> None:
    """The process that listens at the address, and no other."""
    program = "import socket,time; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1], flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            found = listener_on("redis", f"127.0.0.1:{port}")
            assert found == process.pid
            server = OwnedServer(found)
            server.take_down()
            assert until_state(found, "T")
            server.bring_up()
            assert until_state(found, "S")
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
        finally:
            os.kill(process.pid, signal.SIGKILL)


def until_state(pid: int, state: str) -> bool:
    for _ in range(100):
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == state:
            return True
        time.sleep(0.05)
    return False


def test_only_names_faults_that_can_be_played_and_says_how_many_are_left_out() -> None:
    """A typing error must not make a run of nothing."""
    plan = Plan([Fault(name, "", lambda _: Hit("")) for name in ("kill", "zombie", "redis wiped")])
    assert [fault.name for fault in plan.only(["zombie"]).faults] == ["zombie"]
    assert plan.only(["zombie"]).left_out == {"2 others": "left out by --only"}
    with pytest.raises(SettingsError, match="redis wiped"):
        plan.only(["redis wipde"])


def test_a_scorecard_is_good_only_if_everything_is() -> None:
    """A row lost, a fault that nobody came back from, a look that found something: each alone makes it bad."""
    assert CARD.is_good
    assert CARD.faults == 2
    assert "exactly once: 2 faults" in next(iter(CARD.lines()))
    assert any("disk full" in line for line in CARD.lines())
    for bad in (
        replace(CARD, lost=1),
        replace(CARD, extra=1),
        replace(CARD, problems=["audit"]),
        replace(CARD, played=[replace(PLAYED, recovered_seconds=None)]),
        replace(CARD, played=[replace(PLAYED, is_good=False)]),
    ):
        assert not bad.is_good
        assert next(iter(bad.lines())).startswith("NOT")
        assert bad.as_json()["good"] is False
