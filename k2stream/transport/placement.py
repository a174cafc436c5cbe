"""Which worker reads which partition: sticky, balanced, equal partition numbers of co-partitioned topics on one worker; pure.

Topics are co-partitioned when they have the same number of partitions and the same family (`family_of`): redundant sources of one data type
must meet in one window, a Faust table's changelog must lie where its topic is read. Partition n of all of them is one *unit*, and units are
what is dealt out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

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
    standing_by: frozenset[TopicPartition] = frozenset()
    """Changelog partitions of which it holds a copy."""


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
        heirs = {n: members[n].standing_by.isdisjoint(unit.partitions) for n in room if room[n]}
        name = min(heirs, key=lambda n: (heirs[n], len(placement[n]), n))
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


def stand_by(placement: Placement, members: Mapping[str, Member], *, topics: Iterable[str], replicas: int) -> Placement:
    """Which members keep copies of the placed partitions of `topics`, up to `replicas` of each, never the one that reads it.

    Who holds a copy keeps it as far as balance allows; every member has an entry.
    """
    copies: Placement = {name: set() for name in members}
    wanted, owners = set(topics), {tp: name for name, tps in placement.items() for tp in tps}
    copied = sorted(tp for tp in owners if tp.topic in wanted)
    share = -(-len(copied) * replicas // max(1, len(members)))
    for tp in copied:
        others = [name for name, m in members.items() if name != owners[tp] and tp.topic in m.topics]
        kept = {name: tp in members[name].standing_by and len(copies[name]) < share for name in others}
        for name in sorted(others, key=lambda n: (not kept[n], len(copies[n]), n))[:replicas]:
            copies[name].add(tp)
    return copies
