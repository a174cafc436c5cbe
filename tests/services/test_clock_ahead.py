"""A worker whose clock is hours ahead of the broker's, which refuses records from the future."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from k2stream.chaos.crew import Member
from k2stream.chaos.machine_faults import find_faketime, give_clock
from k2stream.playback import publish_recorded
from k2stream.transport.ends import ends_of
from tests.services.rebalance_site import crew

HOURS = 3

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
faketime = pytest.mark.skipif(find_faketime() is None and os.environ.get("CI") != "true", reason="libfaketime is not here: make services S=faketime")


@faketime
def test_a_worker_hours_ahead_of_its_broker_goes_on(fresh_kafka: str, tmp_path: Path) -> None:
    """Rows, letters and the live table of instruments with its changelog: nothing is refused, nothing is lost, and the worker lives."""
    library = find_faketime()
    assert library is not None, "CI has libfaketime: make services S=faketime"
    place = Member("ahead", tmp_path)
    give_clock(place, library).write_text(f"+{HOURS * 3600}", encoding="ascii")
    environment = {"K2_BROKER": f"k2kafka://{fresh_kafka}", "K2_TOPICS": "data_type:reference_data", **place.extra}
    with crew(tmp_path, environment, name="ahead", workers=1) as this:

        def letters() -> Mapping[str, Any]:
            found: dict[str, Any] = (this.group.state(0) or {}).get("dead_letters_by_reason", {})
            return found

        this.wait(lambda: sum(letters().values()) >= 2, 120, "no letters are counted")
        seen = sum(letters().values())
        this.wait(lambda: sum(letters().values()) > seen, 120, "letters are counted no more")
        settings = this.group.settings()
        publish_recorded(settings, "instruments")
        changelog = f"{settings.app_id}-instruments-changelog"
        this.wait(lambda: sum(ends_of(settings, [changelog]).values()) > 0, 120, "the changelog of instruments holds nothing")
        assert this.group.running() == [0]
        this.finish()
        assert "InvalidTimestampError" not in this.group.worker(0).log_path.read_text(encoding="utf-8", errors="replace")
