"""Worker processes that join, leave, are stopped and are killed: how soon others commit what they read, and that nothing is lost by it.

Each test prints what it measured (`-s` shows it). Seconds that the machine's host gave to other machines are not counted.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from k2stream.dev.service import Service
from k2stream.records import TopicPartition
from tests.quiet import CpuTime
from tests.services.rebalance_site import SESSION_SECONDS, Crew, crew

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

HANDOVER_SECONDS = 3.0
TAKEOVER_SECONDS = SESSION_SECONDS + 5.0
STORM_SECONDS, STORM_EVERY_SECONDS, SILENCE_SECONDS = 60.0, 5.0, 15.0

NewCrew = Callable[..., AbstractContextManager[Crew]]


@pytest.fixture
def new_crew(fresh_kafka: str, redis: Service, tmp_path: Path) -> NewCrew:
    """Makes workers by name, on the broker and the Redis of this session."""
    environment = {"K2_BROKER": f"k2kafka://{fresh_kafka}", **redis.exports()}

    def make(name: str, workers: int, **own: str) -> AbstractContextManager[Crew]:
        return crew(tmp_path, {**environment, **own}, name=name, workers=workers)

    return make


def tell(what: str, seconds: Mapping[TopicPartition, float]) -> None:
    print(f"\n{what}: {', '.join(f'{tp.partition}: {s:.2f} s' for tp, s in sorted(seconds.items()))}")


def logged(this: Crew, number: int, event: str) -> Iterator[dict[str, Any]]:
    """A worker's log events of this name."""
    for line in this.group.worker(number).log_path.read_text(encoding="utf-8").splitlines():
        if f'"event": "{event}"' in line:
            yield json.loads(line)


def test_killed_worker_is_taken_over_within_session_timeout_plus_5s(new_crew: NewCrew) -> None:
    """kill -9: the broker waits for the session's end, and from then on it takes at most 5 s."""
    with new_crew("killed", 2) as this:
        theirs = this.owned(0)
        killed_at, cores = time.time(), CpuTime.now()
        this.group.kill(0)
        found = this.seconds_until_others_commit(0, theirs, since=killed_at)
        tell("killed, committed again after", found)
        assert cores.own_seconds(max(found.values())) < TAKEOVER_SECONDS
        this.finish()


def test_planned_stop_hands_over_within_3s_without_uncommitted_window(new_crew: NewCrew) -> None:
    """SIGTERM: what was read is committed before the worker leaves, and it leaves at once."""
    with new_crew("stopped", 2) as this:
        theirs = this.owned(0)
        stopped_at, cores = time.time(), CpuTime.now()
        os.kill(this.group.worker(0).pid, signal.SIGTERM)
        found = this.seconds_until_others_commit(0, theirs, since=stopped_at)
        tell("stopped, committed by another after", found)
        assert cores.own_seconds(max(found.values())) < HANDOVER_SECONDS
        assert this.group.worker(0).wait() == 0
        assert list(logged(this, 0, "capture.revoked_late")) == []
        assert list(logged(this, 1, "capture.restart")) == []
        this.finish()


def test_in_a_rebalance_storm_every_15_seconds_see_commits(new_crew: NewCrew) -> None:
    """A worker joins or leaves every 5 s: no partition is silent for long, though each takes every partition away from everybody."""
    with new_crew("storm", 2) as this:
        began, cores = time.time(), CpuTime.now()
        while time.time() < began + STORM_SECONDS:
            third = this.group.start()
            this.wait(lambda third=third: bool(this.owned(third)), 180, "a worker that joins gets no partition")  # type: ignore[misc] # lambda default
            time.sleep(STORM_EVERY_SECONDS)
            os.kill(this.group.worker(third).pid, signal.SIGTERM)
            time.sleep(STORM_EVERY_SECONDS)
        silences = {tp: this.longest_silence(tp, since=began) for tp in this.tps}
        tell("storm, longest silence", silences)
        assert cores.own_seconds(max(silences.values())) < SILENCE_SECONDS
        this.finish()


def test_window_of_a_retained_partition_survives_a_rebalance(new_crew: NewCrew) -> None:
    """No time to commit at the revoke: what came back is committed from memory, and neither read nor judged again."""
    with new_crew("retained", 2, K2_REVOKE_TIMEOUT_MS="1") as this:
        for _ in range(6):
            third = this.group.start()
            this.settle(0, 1, third, seconds=180)
            this.group.stop(third)
            this.settle(0, 1)
            if any(event["window_rows"] for number in (0, 1) for event in logged(this, number, "capture.assigned")):
                break
        else:
            pytest.fail("no window was open at any rebalance")
        this.wait(lambda: this.trades(0)["rebalance"]["first_commit_seconds"] is not None, 60, "nothing was committed after the rebalance")
        rebalance = this.trades(0)["rebalance"]
        assert rebalance["kept"] > 0
        assert rebalance["first_commit_seconds"] is not None
        print("\npause of the newest rebalance:", rebalance)
        this.finish()
