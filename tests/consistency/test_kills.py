"""Workers killed with SIGKILL at every numbered step, again and again: the tables end as if nobody had died.

One home a chain: the worker dies at a step, the next one takes over and dies at the next step, and so on; the last one
finishes. The log was published once, with faults, so that every column of both tables must be equal.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.consistency.harness import Outcome, Site

FIRST_CHAIN = ("decode:2", "0.settle:2", "1.rows:2", "1.events", "1.tracker", "1.fsync", "2.head", "3.before", "3.after", "restore:3", "4.decided:2")
"""From the first look at a batch to a commit that landed and was never heard of."""
SECOND_CHAIN = ("6.saving", "4.decided", "5.head", "5.before:2", "5.after", "restore", "6.before", "6.after", "6.after", "7.after:2")
"""From a commit that landed to its acks: outbox, state, and a death twice in a row at one step. Its first window has two partitions, so
that a state save dies between them."""

AFTER_EACH_REDIS_IS_WIPED = (
    ("1.tracker", "3.after", "5.before", "6.saving", "decode:2", "1.rows:2", "1.fsync", "3.before", "5.head"),
    ("4.decided", "5.after", "restore", "6.before", "7.after:2", "0.settle:2", "1.events", "2.head", "6.after"),
)
"""Where what Redis held would have told of more than the tracker file does, or the other way round."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def outcome_after(site: Site, steps: tuple[str, ...], *, is_wiped: bool) -> Outcome:
    """Kill a worker at each step in turn; Redis loses everything in between, or nothing."""
    for step in steps:
        site.run_until_killed(step)
        assert site.problems() == (), step
        if is_wiped:
            site.wipe_redis()
    site.run_until_caught_up()
    assert site.problems() == ()
    return site.outcome()


@pytest.mark.parametrize(
    ("chains", "is_wiped"),
    [((FIRST_CHAIN, SECOND_CHAIN), False), (AFTER_EACH_REDIS_IS_WIPED, True)],
    ids=["redis kept", "redis wiped"],
)
def test_killed_at_every_step_the_tables_are_those_of_an_uninterrupted_run(
    new_site: Callable[[str], Site], reference: Outcome, chains: tuple[tuple[str, ...], ...], is_wiped: bool
) -> None:
    """Two chains at a time, for most of a worker's start is waiting for imports."""
    with ThreadPoolExecutor(len(chains)) as threads:
        sites = [new_site("killed") for _ in chains]
        running = [threads.submit(outcome_after, site, steps, is_wiped=is_wiped) for site, steps in zip(sites, chains, strict=True)]
        assert [r.result() for r in running] == [reference] * len(chains)
