"""The assignor's promises under drawn groups: whole, co-partitioned, balanced, sticky."""

from collections import Counter
from collections.abc import Mapping

import faust
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.records import TopicPartition
from k2stream.transport.assignor import Assignor, pack_claim, unpack_claim
from k2stream.transport.placement import Member, Placement, family_of, place, stand_by

TRADES = tuple(f"market.{kind}.trades.{exchange}" for kind, exchange in [("equities", "asx"), ("crypto", "binance"), ("crypto", "kraken")])
TOPICS = (*TRADES, "market.equities.quotes.asx", "dlq.equities.trades", "control")

topic_counts = st.dictionaries(st.sampled_from(TOPICS), st.sampled_from([1, 3, 4, 8, 40]), min_size=1)
names = st.sets(st.sampled_from([f"worker-{n}" for n in range(7)]), min_size=1)


def everyone(workers: set[str], partitions: Mapping[str, int], before: Placement | None = None) -> dict[str, Member]:
    """Members that all subscribe to everything and own what `before` gave them."""
    before = before or {}
    return {w: Member(frozenset(partitions), frozenset(before.get(w, ())), 1) for w in sorted(workers)}


def owner_of(placement: Placement) -> dict[TopicPartition, str]:
    """Partition -> member, asserting that there is one only."""
    owners = {tp: name for name, tps in placement.items() for tp in tps}
    assert len(owners) == sum(map(len, placement.values()))
    return owners


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, Member]]:
    """Any group: members with other subscriptions, claims of old rounds, claims that overlap, claims of what is gone."""
    partitions = draw(topic_counts)
    anything = st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 45))
    members = {
        name: Member(draw(st.frozensets(st.sampled_from(TOPICS))), draw(st.frozensets(anything, max_size=20)), draw(st.integers(0, 3)))
        for name in sorted(draw(names))
    }
    return partitions, members


@settings(deadline=None)
@given(groups())
def test_every_subscribed_partition_has_one_subscribed_member(group: tuple[dict[str, int], dict[str, Member]]) -> None:
    """Nothing is left unread, nothing is read twice, whatever the members claim."""
    partitions, members = group
    wanted = {TopicPartition(t, n) for t, count in partitions.items() for n in range(count) if any(t in m.topics for m in members.values())}

    owners = owner_of(place(partitions, members))

    assert set(owners) == wanted
    assert all(tp.topic in members[name].topics for tp, name in owners.items())


@settings(deadline=None)
@given(topic_counts, names)
def test_equal_numbers_of_copartitioned_topics_meet_on_one_worker(partitions: dict[str, int], workers: set[str]) -> None:
    """Two feeds of one exchange must be in one window, or a duplicate goes unseen."""
    owners = owner_of(place(partitions, everyone(workers, partitions)))
    homes: dict[tuple[str, int, int], set[str]] = {}
    for tp, name in owners.items():
        homes.setdefault((family_of(tp.topic), partitions[tp.topic], tp.partition), set()).add(name)
    assert all(len(home) == 1 for home in homes.values())


@settings(deadline=None)
@given(topic_counts, names)
def test_no_worker_has_two_units_more_than_another(partitions: dict[str, int], workers: set[str]) -> None:
    """Balance per topic: equal, or one more."""
    placement = place(partitions, everyone(workers, partitions))
    for topic in partitions:
        counts = Counter(tp.topic for tps in placement.values() for tp in tps)
        sizes = [sum(tp.topic == topic for tp in tps) for tps in placement.values()]
        assert counts[topic] == partitions[topic]
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(topic_counts, names)
def test_rebalance_without_a_change_moves_nothing(partitions: dict[str, int], workers: set[str]) -> None:
    """Windows of partitions that stay survive a rebalance; so they must stay."""
    before = place(partitions, everyone(workers, partitions))
    assert place(partitions, everyone(workers, partitions, before)) == before


@settings(deadline=None)
@given(topic_counts, names, st.data())
def test_join_and_leave_move_only_what_they_must(partitions: dict[str, int], workers: set[str], data: st.DataObject) -> None:
    """Who leaves gives, who joins takes; between those that stay nothing moves."""
    after = data.draw(names)
    before = place(partitions, everyone(workers, partitions))
    now = place(partitions, everyone(after, partitions, before))

    stayed = workers & after
    if after <= workers or workers <= after:  # a swap may need moves between those that stay: balance goes first
        was, is_ = owner_of(before), owner_of(now)
        moved = [tp for tp in was if was[tp] in stayed and is_[tp] in stayed and was[tp] != is_[tp]]
        assert not moved


@settings(deadline=None)
@given(names, st.integers(1, 40))
def test_new_topic_of_a_pattern_goes_where_its_numbers_are(workers: set[str], count: int) -> None:
    """An exchange that appears later joins the partitions of its data type; those do not move."""
    old, new = {TRADES[0]: count}, {TRADES[0]: count, TRADES[1]: count}
    before = place(old, everyone(workers, old))
    owners = owner_of(place(new, everyone(workers, new, before)))

    assert all(owners[tp] == name and owners[TopicPartition(TRADES[1], tp.partition)] == name for tp, name in owner_of(before).items())


def test_worker_that_slept_through_a_round_claims_in_vain() -> None:
    """A zombie and its heir claim the same partitions: the later round holds."""
    topics = {TRADES[0]: 4}
    half = frozenset(TopicPartition(TRADES[0], n) for n in (0, 1))
    rest = frozenset(TopicPartition(TRADES[0], n) for n in (2, 3))
    members = {"a-zombie": Member(frozenset(topics), half, 4), "heir": Member(frozenset(topics), half, 5)}

    assert place(topics, members) == {"a-zombie": set(rest), "heir": set(half)}


def test_workers_for_other_topics_do_not_idle() -> None:
    """Nobody reads the whole group: it falls apart by who reads what, and all of it is read."""
    members = {"asx": Member(frozenset(TRADES[:1])), "binance": Member(frozenset(TRADES[1:2]))}
    placement = place({TRADES[0]: 2, TRADES[1]: 2}, members)
    assert {name: {tp.topic for tp in tps} for name, tps in placement.items()} == {"asx": {TRADES[0]}, "binance": {TRADES[1]}}


@given(st.binary())
def test_unreadable_claim_counts_as_none(data: bytes) -> None:
    """Another client's user data in the group protocol never stops a rebalance."""
    assert unpack_claim(data) == (0, frozenset(), frozenset(), "")


@settings(deadline=None)
@given(topic_counts, names, names, st.integers(0, 3))
def test_copies_of_changelogs_lie_elsewhere_and_stay(partitions: dict[str, int], workers: set[str], after: set[str], replicas: int) -> None:
    """A copy beside the original is none; as many as asked for where there are workers for them; balanced, and unmoved without a change."""

    def copied(members: Mapping[str, Member]) -> Placement:
        return stand_by(place(partitions, members), members, topics=partitions, replicas=replicas)

    before = everyone(workers, partitions)
    copies = copied(before)
    now = {n: Member(m.topics, frozenset(place(partitions, before)[n]), 1, frozenset(copies[n])) for n, m in before.items()}
    placement = place(partitions, now)
    counts = Counter(tp for tps in copies.values() for tp in tps)

    assert copied(now) == copies
    assert all(copies[n].isdisjoint(placement[n]) for n in workers)
    assert set(counts.values()) <= {min(replicas, len(workers) - 1)}
    assert len(counts) == (sum(partitions.values()) if replicas and len(workers) > 1 else 0)
    grown = {n: now.get(n, Member(frozenset(partitions))) for n in sorted(workers | after)}
    total = sum(len(tps) for tps in copied(grown).values())
    assert total == sum(partitions.values()) * min(replicas, len(grown) - 1)


def test_worker_with_a_copy_inherits() -> None:
    """Who already holds a table's rows takes the partition over: nothing has to be read again."""
    topics = {"control": 4}
    held = [frozenset({TopicPartition("control", n)}) for n in range(4)]
    members = {"a": Member(frozenset(topics), held[0], 1, held[3]), "b": Member(frozenset(topics), held[1], 1, held[2])}

    assert place(topics, members) == {"a": set(held[0] | held[3]), "b": set(held[1] | held[2])}


class FixedCluster:
    """A cluster with these topics and no broker."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Partition numbers, None if the topic is not there."""
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def app_with(*tables: str, of_all: str = "", replicas: int = 1) -> faust.App:
    """An app with Faust tables, and one that every worker holds whole."""
    app = faust.App("assigned", broker="k2kafka://127.0.0.1:1", autodiscover=False, web_enabled=False, table_standby_replicas=replicas)
    for name in tables:
        app.Table(name, partitions=4)
    if of_all:
        app.GlobalTable(of_all, partitions=4)
    return app


def rebalance(workers: Mapping[str, Assignor], cluster: FixedCluster, topics: list[str]) -> None:
    """One round through the group protocol's own bytes."""
    metadata = {n: ConsumerProtocolMemberMetadata.decode(a.metadata(topics).encode()) for n, a in workers.items()}
    leader = workers[min(workers)]
    for name, assignment in leader.assign(cluster, metadata).items():
        workers[name].on_assignment(ConsumerProtocolMemberAssignment.decode(assignment.encode()))


def test_rounds_count_up_through_the_group_protocol() -> None:
    """What was assigned is claimed in the next round, through the protocol's own bytes, with a missing topic among the subscribed."""
    workers = {name: Assignor(app_with()) for name in ("one", "two")}
    cluster, topics = FixedCluster({TRADES[0]: 5}), [TRADES[0], "not.there.yet"]
    seen = []
    for _ in range(2):
        rebalance(workers, cluster, topics)
        seen.append({n: unpack_claim(a.metadata(topics).user_data) for n, a in workers.items()})

    assert [s["one"][0] for s in seen] == [1, 2]
    assert [s["one"][1] for s in seen] == [seen[0]["one"][1]] * 2
    assert sum(len(claim[1]) for claim in seen[0].values()) == 5
    assert unpack_claim(pack_claim(3, ())) == (3, frozenset(), frozenset(), "")


def test_faust_is_told_which_changelogs_are_ours() -> None:
    """Recovery asks which partitions to restore and which to copy: originals once, copies elsewhere, beside the topic they belong to."""
    workers = {name: Assignor(app_with("counts"), replicas=1) for name in ("one", "two")}
    changelog = "assigned-counts-changelog"
    topics = ["events", changelog]
    rebalance(workers, FixedCluster(dict.fromkeys(topics, 4)), topics)

    actives = {n: {tp.partition for tp in a.assigned_actives() if tp.topic == changelog} for n, a in workers.items()}
    standbys = {n: {tp.partition for tp in a.assigned_standbys()} for n, a in workers.items()}
    assert sorted(map(len, actives.values())) == [2, 2]
    assert standbys == {"one": actives["two"], "two": actives["one"]}
    assert {tp.partition for tp in workers["one"].assigned_actives() if tp.topic == "events"} == actives["one"]
    assert all(workers["one"].is_active(tp) != workers["one"].is_standby(tp) for tp in (TP(changelog, n) for n in range(4)))
    (url,) = {str(host) for host in workers["one"].tables_metadata()}
    assert workers["one"].table_metadata(changelog)[url][changelog]


def test_global_table_is_read_whole_by_everybody() -> None:
    """Each worker restores all of it, and a second round moves nothing for it."""
    workers = {name: Assignor(app_with(of_all="prices")) for name in ("one", "two", "three")}
    topics = ["assigned-prices-changelog", TRADES[0]]
    seen = []
    for _ in range(2):
        rebalance(workers, FixedCluster(dict.fromkeys(topics, 4)), topics)
        seen.append({n: a.assigned_actives() for n, a in workers.items()})

    assert seen[0] == seen[1]
    assert all(len({tp for tp in tps if tp.topic == topics[0]}) == 4 for tps in seen[0].values())
