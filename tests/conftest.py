"""Tests that need a service stay out of the ordinary run and are counted on its last line; `--services` runs them alone, `--with-services` all."""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from k2stream.dev.service import Service
from k2stream.dev.services import SERVICES
from k2stream.settings import Settings, load_settings

ELSEWHERE = {"kafka": "K2_TEST_KAFKA"}
"""Service -> variable that names one which runs already; its tests are then part of every run."""


@dataclass(slots=True)
class LeftOut:
    """What is not run, and why."""

    counts: dict[str, int] = field(default_factory=dict)
    """Service -> tests that wait for it."""

    lacks: dict[str, str] = field(default_factory=dict)
    """Service -> what the machine lacks; empty where it was not asked for."""

    def line(self) -> str:
        waiting = ", ".join(f"{name} {count}" + (f" (lacks {self.lacks[name]})" if name in self.lacks else "") for name, count in self.counts.items())
        mends = f"make services S='{' '.join(self.lacks)}'" if self.lacks else "make test-services"
        return f"{sum(self.counts.values())} tests wait for a service: {waiting}. This runs them: {mends}"


LEFT_OUT = pytest.StashKey[LeftOut]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--services", action="store_true", help="run the tests that need a service, on servers that they start, and only these")
    parser.addoption("--with-services", action="store_true", help="run these tests and all others")


def starts_services(config: pytest.Config) -> bool:
    return bool(config.getoption("--services") or config.getoption("--with-services"))


def service_of(item: pytest.Item) -> str | None:
    """The service that a test waits for: of several the first that cannot be had."""
    needs = [name for name in SERVICES if item.get_closest_marker(name)]
    lacking = lacks_of(item.config)
    return next((name for name in needs if name in lacking), needs[0] if needs else None)


def lacks_of(config: pytest.Config) -> dict[str, str]:
    """What the machine lacks for which service."""
    if LEFT_OUT not in config.stash:
        config.stash[LEFT_OUT] = LeftOut()
        if starts_services(config):
            found = {name: kind(Path("unused"), load_settings()).lacks() for name, kind in SERVICES.items() if name not in given()}
            config.stash[LEFT_OUT].lacks = {name: what for name, what in found.items() if what}
    return config.stash[LEFT_OUT].lacks


def given() -> dict[str, str]:
    """Service -> address of one that runs already."""
    return {name: os.environ[variable] for name, variable in ELSEWHERE.items() if os.environ.get(variable)}


def is_wanted(item: pytest.Item) -> bool:
    """What needs no service unless these are wanted alone, and what needs one that can be had or is there already."""
    service = service_of(item)
    if service is None:
        return not item.config.getoption("--services")
    return service not in lacks_of(item.config) if starts_services(item.config) else service in given()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not to run here; on CI a service that cannot be had is a failure."""
    lacks = lacks_of(config)
    deselected = [item for item in items if not is_wanted(item)]
    waiting = [service for item in deselected if (service := service_of(item))]
    left_out = config.stash[LEFT_OUT]
    left_out.counts = {name: waiting.count(name) for name in SERVICES if name in waiting}
    left_out.lacks = {name: what for name, what in lacks.items() if name in left_out.counts}
    if left_out.lacks and os.environ.get("CI") == "true":
        raise pytest.UsageError(left_out.line())
    items[:] = [item for item in items if is_wanted(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say it after the terminal's own last line; a worker of pytest-xdist tells its controller."""
    if hasattr(session.config, "workeroutput"):  # before the yield, in which it is sent
        own = session.config.stash.get(LEFT_OUT, LeftOut())
        session.config.workeroutput["left_out"] = [own.counts, own.lacks]
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    left_out = session.config.stash.get(LEFT_OUT, LeftOut())
    if reporter is not None and left_out.counts:
        reporter.write_line(left_out.line())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker of pytest-xdist collects all tests, so one's count is that of all. `node` is a type of the plugin's own."""
    node.config.stash[LEFT_OUT] = LeftOut(*getattr(node, "workeroutput", {}).get("left_out", []))


def started(name: str, factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of this session; started by the first test that asks, gone with the last."""
    with SERVICES[name](factory.mktemp(name), Settings()) as service:
        yield service


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a broker that tests may write to."""
    if there := given().get("kafka"):
        yield there
    else:
        yield from (service.address for service in started("kafka", tmp_path_factory))


@pytest.fixture
def fresh_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a broker that no other test wrote to: topics of dead letters are everybody's, and workers read all of them."""
    yield from (service.address for service in started("kafka", tmp_path_factory))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A PostgreSQL with an empty database."""
    yield from started("postgres", tmp_path_factory)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An S3 server with an empty bucket."""
    yield from started("s3", tmp_path_factory)


@pytest.fixture(scope="session")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An Iceberg REST catalog without a table."""
    yield from started("rest", tmp_path_factory)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A schema registry without a schema."""
    yield from started("registry", tmp_path_factory)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Redis on a port, with a password."""
    yield from started("redis", tmp_path_factory)
