"""What the application is: exactly these agents, topics, tables and pages; one that is missing is read by nobody, in silence."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json
from agents import app
from k2stream.web.pages import PAGES
print(json.dumps({
    "agents": sorted(app.agents),
    "batch_topics": {data_type: list(patterns) for data_type, (patterns, _) in app.patterns.items()},
    "event_topics": sorted({topic for agent in app.agents.values() for topic in agent.channel.topics}),
    "tables": sorted(app.tables),
    "pages": sorted(PAGES),
}))
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, object]:
    """Of an application imported as `faust -A agents` does, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    home = tmp_path_factory.mktemp("application") / "k2"
    environment["K2_HOME"] = str(home)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not home.exists(), "importing the application must make nothing"
    said: Mapping[str, object] = json.loads(done.stdout)
    return said


def test_the_exact_set_of_agents(declared: Mapping[str, object]) -> None:
    """By their pinned names."""
    assert declared["agents"] == ["instruments", "quotes", "trades"]


def test_the_exact_set_of_topics(declared: Mapping[str, object]) -> None:
    """Market topics come in batches and by pattern; no agent reads letters, for a flood of them would hold trades up."""
    assert declared["batch_topics"] == {"quotes": ["market.*.*.*"], "reference_data": ["market.*.*.*"], "trades": ["market.*.*.*"]}
    assert declared["event_topics"] == []


def test_the_exact_set_of_tables(declared: Mapping[str, object]) -> None:
    """Live tables have changelog topics, so a new one is a new topic."""
    assert declared["tables"] == ["instruments"]


def test_the_exact_set_of_pages(declared: Mapping[str, object]) -> None:
    """Beside Faust's own."""
    assert declared["pages"] == ["/healthz", "/instruments", "/livez", "/metrics", "/reasons", "/state"]
