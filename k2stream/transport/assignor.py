"""Which worker reads which partition: sticky, balanced, equal partition numbers of co-partitioned topics on one worker.

Topics are co-partitioned when they have the same number of partitions and the same family (`family_of`): redundant sources of one data type
must meet in one window. Partition n of all of them is one *unit*, and units are what is dealt out.

`place` is pure. `Assignor` is the shell that aiokafka calls: each member tells with its subscription what it owned and since which round;
the leader numbers the rounds, so what a worker claims that was away for a round yields to the claim of whoever took over.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from k2stream.records import TopicPartition

Placement = dict[str, set[TopicPartition]]
"""Member id -> what it reads; every member has an entry."""


@dataclass(frozen=True, slots=True)
class Member:
    """One worker as the leader of the group sees it."""

    topics: frozenset[str]
    """What it subscribed to."""
    owned: frozenset[TopicPartition] = frozenset()
    """What it read before the rebalance."""
    round: int = 0
    """Number of the assignment that gave it these; of two claims the later holds."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Equal partition numbers of co-partitioned topics."""

    number: int
    partitions: frozenset[TopicPartition]


def family_of(topic: str) -> str:
    """Data type of a market topic (`market.{asset_class}.{data_type}.{exchange}`); all other topics are one family."""
    parts = topic.split(".")
    return parts[2] if len(parts) == 4 and parts[0] == "market" else ""


def place(partitions: Mapping[str, int], members: Mapping[str, Member], *, family: Callable[[str], str] = family_of) -> Placement:
    """Deal every subscribed topic's partitions out to the members.

    `partitions` is the number of partitions per topic. Guarantees: each partition of a topic that anybody subscribed to has exactly one
    member, a subscribed one; per group of co-partitioned topics no member has two units more than another; a unit stays with its owner
    unless balance forbids it; the same arguments give the same answer.
    """
    placement: Placement = {name: set() for name in members}
    for topics, readers in _groups(partitions, members, family):
        count = partitions[min(topics)]
        units = [Unit(n, frozenset(TopicPartition(t, n) for t in topics)) for n in range(count)]
        _deal(units, {name: members[name] for name in readers}, placement)
    return placement


def _groups(partitions: Mapping[str, int], members: Mapping[str, Member], family: Callable[[str], str]) -> Iterator[tuple[list[str], list[str]]]:
    """Co-partitioned topics with the members that can read all of them.

    Where nobody reads the whole group (members configured for different topics), it falls apart by who reads what.
    """
    grouped: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for topic in sorted(partitions):
        if any(topic in m.topics for m in members.values()):
            grouped[family(topic), partitions[topic]].append(topic)
    for _, topics in sorted(grouped.items()):
        if readers := _readers(topics, members):
            yield topics, readers
        else:
            yield from _by_readers(topics, members)


def _readers(topics: Iterable[str], members: Mapping[str, Member]) -> list[str]:
    return sorted(name for name, m in members.items() if m.topics.issuperset(topics))


def _by_readers(topics: Iterable[str], members: Mapping[str, Member]) -> Iterator[tuple[list[str], list[str]]]:
    same: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for topic in topics:
        same[tuple(_readers([topic], members))].append(topic)
    for readers, group in sorted(same.items()):
        yield group, list(readers)


def _deal(units: list[Unit], members: Mapping[str, Member], placement: Placement) -> None:
    """Add one group's units to the placement: first what stays, then the rest to whoever has least."""
    claims: defaultdict[str, list[Unit]] = defaultdict(list)
    orphans: list[Unit] = []
    for unit in units:
        owner = _owner(unit, members)
        (claims[owner] if owner else orphans).append(unit)
    room = _quotas(len(units), {name: len(claims[name]) for name in members}, placement)
    for name, claimed in claims.items():
        kept, lost = claimed[: room[name]], claimed[room[name] :]
        _give(placement, name, kept)
        room[name] -= len(kept)
        orphans += lost
    for unit in sorted(orphans, key=lambda u: u.number):
        name = min((n for n in room if room[n]), key=lambda n: (len(placement[n]), n))
        _give(placement, name, [unit])
        room[name] -= 1


def _owner(unit: Unit, members: Mapping[str, Member]) -> str | None:
    """Who read the unit last: the latest round, then the larger share of it."""
    claims = [(-m.round, -len(m.owned & unit.partitions), name) for name, m in members.items() if m.owned & unit.partitions]
    return min(claims)[2] if claims else None


def _quotas(units: int, claimed: Mapping[str, int], placement: Placement) -> dict[str, int]:
    """Units each member gets: equal, and the remainder to who would lose one without it, then to who has least."""
    share, remainder = divmod(units, len(claimed))
    first = sorted(claimed, key=lambda n: (claimed[n] <= share, len(placement[n]), n))
    return {name: share + (i < remainder) for i, name in enumerate(first)}


def _give(placement: Placement, name: str, units: Iterable[Unit]) -> None:
    for unit in units:
        placement[name] |= unit.partitions


class Assignor(AbstractPartitionAssignor):  # type: ignore[misc] # aiokafka ships no types
    """What aiokafka's coordinator calls; one for each consumer, as it remembers what that consumer read."""

    name = "k2stream-sticky"
    version = 0

    def __init__(self) -> None:
        self._round = 0
        self._owned: frozenset[TopicPartition] = frozenset()

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """This member's subscription, and what it owned."""
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), pack_claim(self._round, self._owned))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what was given, for the next round."""
        self._owned = frozenset(TopicPartition(*tp) for tp in assignment.partitions())
        self._round, _ = unpack_claim(assignment.user_data)

    def assign(self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Leader only: what each member of the group reads from now on."""
        known = {name: _member(metadata) for name, metadata in members.items()}
        topics = set().union(*(m.topics for m in known.values()))
        partitions = {t: len(numbers) for t in topics if (numbers := cluster.partitions_for_topic(t))}
        stamp = pack_claim(1 + max((m.round for m in known.values()), default=0), ())
        return {name: ConsumerProtocolMemberAssignment(self.version, sorted(_by_topic(tps).items()), stamp) for name, tps in place(partitions, known).items()}


def pack_claim(round_: int, owned: Iterable[TopicPartition]) -> bytes:
    """What a member owned since which round, as bytes for the group protocol."""
    return json.dumps({"round": round_, "owned": _by_topic(owned)}).encode()


def unpack_claim(data: bytes) -> tuple[int, frozenset[TopicPartition]]:
    """The inverse; anything unreadable counts as having owned nothing."""
    try:
        claim = json.loads(data)
        owned = frozenset(TopicPartition(str(t), int(n)) for t, numbers in claim["owned"].items() for n in numbers)
        return int(claim["round"]), owned
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return 0, frozenset()


def _by_topic(tps: Iterable[TopicPartition]) -> dict[str, list[int]]:
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for topic, number in sorted(tps):
        numbers[topic].append(number)
    return dict(numbers)


def _member(metadata: ConsumerProtocolMemberMetadata) -> Member:
    round_, owned = unpack_claim(metadata.user_data)
    return Member(frozenset(metadata.subscription), owned, round_)
