"""What aiokafka's coordinator asks who reads what, and what Faust asks which tables are ours; the answers are `placement.py`'s.

Each member tells with its subscription what it owned and since which round; the leader numbers the rounds, so what a worker claims that was
away for a round yields to the claim of whoever took over.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor

from k2stream.records import TopicPartition
from k2stream.transport.placement import Member, Placement, place, stand_by

ByTopic = dict[str, list[int]]
"""Partition numbers by topic: how the protocol and Faust write partitions down."""


class Assignor(PartitionAssignor):
    """Faust's assignor, and so what its tables and router ask, with our placement; one for each consumer."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        """`replicas` is how many other workers keep a copy of each changelog partition."""
        super().__init__(app, replicas)
        self._round = 0

    @property
    def name(self) -> str:
        """Of the group protocol."""
        return "k2stream-sticky"

    @property
    def version(self) -> int:
        """Of the group protocol."""
        return 0

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """This member's subscription, and what it owned."""
        everywhere = self._global_changelogs()
        owned = [TopicPartition(*tp) for tp in self.assigned_actives() if tp.topic not in everywhere]
        standing_by = [TopicPartition(*tp) for tp in self.assigned_standbys() if tp.topic not in everywhere]
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), pack_claim(self._round, owned, standing_by, url=str(self._url)))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what was given: for the next round, and for Faust's tables."""
        given = json.loads(zlib.decompress(assignment.user_data))
        self._round = given["round"]
        self._assignment = ClientAssignment(actives=given["actives"], standbys=given["standbys"])
        self._active_tps, self._standby_tps = self._assignment.active_tps, self._assignment.standby_tps
        self.changelog_distribution, self.external_topic_distribution = given["changelogs"], given["topics"]
        self._topic_groups = dict.fromkeys(given["actives"], 0)

    def _perform_assignment(
        self, cluster: ClusterMetadata, member_metadata: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> MutableMapping[str, ConsumerProtocolMemberAssignment]:
        """Leader only: what each member of the group reads from now on."""
        claims = {name: unpack_claim(metadata.user_data) for name, metadata in member_metadata.items()}
        self._member_urls = {name: url for name, (_, _, _, url) in claims.items()}
        members = {name: Member(frozenset(member_metadata[name].subscription), owned, round_, by) for name, (round_, owned, by, _) in claims.items()}
        topics = set().union(*(m.topics for m in members.values()))
        partitions = {t: len(numbers) for t in topics if (numbers := cluster.partitions_for_topic(t))}
        return self._told(self._dealt(partitions, members), 1 + max((m.round for m in members.values()), default=0))

    def _dealt(self, partitions: Mapping[str, int], members: Mapping[str, Member]) -> MutableMapping[str, ClientAssignment]:
        """Ours of the placement, and global tables for everybody."""
        placement = place(partitions, members)
        copied = set(self._table_manager.changelog_topics) - self._global_changelogs()
        copies: Placement = stand_by(placement, members, topics=copied, replicas=self.replicas)
        dealt: MutableMapping[str, ClientAssignment] = {
            name: ClientAssignment(actives=by_topic(placement[name]), standbys=by_topic(copies[name])) for name in members
        }
        dealt = self._global_table_standby_assignments(dealt, partitions)
        return dealt

    def _told(self, dealt: MutableMapping[str, ClientAssignment], round_: int) -> MutableMapping[str, ConsumerProtocolMemberAssignment]:
        common = {"round": round_, "changelogs": self._get_changelog_distribution(dealt), "topics": self._get_external_topic_distribution(dealt)}
        told = {}
        for name, given in dealt.items():
            note = zlib.compress(json.dumps({**common, "actives": given.actives, "standbys": given.standbys}).encode())
            told[name] = ConsumerProtocolMemberAssignment(self.version, sorted(given.kafka_protocol_assignment(self._table_manager)), note)
        return told

    def _global_changelogs(self) -> set[str]:
        """Topics that every worker reads whole."""
        return {table._changelog_topic_name() for table in self._table_manager.data.values() if table.is_global}  # noqa: SLF001 # as Faust's own assignor does


def pack_claim(round_: int, owned: Iterable[TopicPartition], standing_by: Iterable[TopicPartition] = (), *, url: str = "") -> bytes:
    """What a member owned and copied since which round, and where its pages are, as bytes for the group protocol."""
    return json.dumps({"round": round_, "owned": by_topic(owned), "standing_by": by_topic(standing_by), "url": url}).encode()


def unpack_claim(data: bytes) -> tuple[int, frozenset[TopicPartition], frozenset[TopicPartition], str]:
    """The inverse: round, owned, copied, URL; anything unreadable counts as having owned nothing."""
    try:
        claim = json.loads(data)
        return int(claim["round"]), _partitions(claim["owned"]), _partitions(claim["standing_by"]), str(claim["url"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return 0, frozenset(), frozenset(), ""


def by_topic(tps: Iterable[TopicPartition]) -> ByTopic:
    """The same partitions, sorted."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for topic, number in sorted(tps):
        numbers[topic].append(number)
    return dict(numbers)


def _partitions(numbers: Mapping[str, Iterable[int]]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(str(topic), int(n)) for topic, of_topic in numbers.items() for n in of_topic)
