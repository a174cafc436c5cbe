"""Tests that need a service are left out where the service is not configured, and counted on the last line."""

import os
from collections.abc import Generator

import pytest

SERVICES = {"kafka": "K2_TEST_KAFKA"}
"""Marker of the tests that need a service -> the variable that says where it is."""

LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run here."""
    away = [marker for marker, variable in SERVICES.items() if not os.environ.get(variable)]
    deselected = {item: next((m for m in away if item.get_closest_marker(m)), None) for item in items}
    items[:] = [item for item in items if deselected[item] is None]
    left_out = [item for item, marker in deselected.items() if marker]
    config.stash[LEFT_OUT] = {m: sum(marker == m for marker in deselected.values()) for m in away}
    if left_out:
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say it after the terminal's own last line."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    counts = {marker: count for marker, count in session.config.stash.get(LEFT_OUT, {}).items() if count}
    if reporter is not None and counts:
        services = ", ".join(f"{marker}: {SERVICES[marker]}" for marker in counts)
        reporter.write_line(f"{sum(counts.values())} tests need a service that is not configured ({services})")
