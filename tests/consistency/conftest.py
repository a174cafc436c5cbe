"""One published log and the tables of a worker that nobody disturbed, for all tests that disturb one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from k2stream.feed import faults
from k2stream.feed.recording import MessageIds
from k2stream.playback import prepare_topics, publish, recorded_trades
from k2stream.settings import Settings
from tests.consistency.harness import SMALL_WINDOWS, Outcome, Site

ROWS = 12_000
FIRST = ["test_cluster.py", "test_poison.py"]
"""The cluster takes longer than all others together on two cores; what is queued behind it, which nobody takes over, is short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose log holds ticks with faults; no worker ever ran in it."""
    home = tmp_path_factory.mktemp("published")
    settings = Settings(home=home, partitions=2)
    recordings = recorded_trades(settings, rows=ROWS)
    schema_ids = prepare_topics(settings, [r.topic for r in recordings])
    scripts, _ = faults.inject(recordings, seed=5, schema_ids=schema_ids, ids=MessageIds(uuid4()))
    publish(settings, scripts, schema_ids)
    return home


@pytest.fixture(scope="session")
def new_site(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Site]:
    """Makes sites by name, each with a copy of the published log."""

    def make(name: str) -> Site:
        return Site(Path(shutil.copytree(published, tmp_path_factory.mktemp(name) / "home")), SMALL_WINDOWS)

    return make


@pytest.fixture(scope="session")
def reference(new_site: Callable[[str], Site]) -> Outcome:
    """The tables of a worker that nobody killed."""
    site = new_site("reference")
    site.run_until_caught_up()
    assert site.problems() == ()
    return site.outcome()
