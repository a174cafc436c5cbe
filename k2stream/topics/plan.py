"""What a log's topics lack of what is declared, and the steps that mend it; pure.

Partitions only grow and nothing is deleted unless it is asked for, so a plan that is carried out leaves nothing to do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from k2stream.topics import LETTERS, MARKET, venue_topic

GROWTH = (
    "keys move between partitions, and the order of a symbol holds only within one: stop its feeds, let the workers read to the end "
    "(lag 0), apply, then start the feeds again"
)

PARTITIONS = "partitions"
"""What differs, where it is their number."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A topic as a file declares it."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a topic is to be made."""

    wanted: Declared
    declared: Declared | None
    """As a file has it; None: it is not declared."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as a log has it."""

    partitions: int
    config: Mapping[str, str]
    """Every value in force, defaults included."""


class Action(StrEnum):
    CREATE = "create"
    GROW = "grow"
    CONFIGURE = "configure"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as declared."""

    topic: str
    what: str
    declared: str
    found: str

    def line(self) -> str:
        return f"{self.topic}: {self.what}: declared {self.declared or 'nothing'}, found {self.found or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Step:
    """One request to the log."""

    action: Action
    topic: str
    partitions: int = 0
    config: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    warns: str = ""

    def line(self) -> str:
        return f"{self.action:9} {self.topic}  {self.says}".rstrip()


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be done, and what is not done because it would lose records."""

    differences: Sequence[Difference]
    steps: Sequence[Step]
    refused: Sequence[str]

    def lines(self) -> list[str]:
        """For people: steps, what to take care of, what is left alone."""
        steps = [line for step in self.steps for line in (step.line(), *([f"  mind: {step.warns}"] if step.warns else []))]
        return [*steps, *(f"left      {sentence}" for sentence in self.refused)] or ["Nothing to do: every topic is as declared."]


def plan(declared: Iterable[Declared], existing: Mapping[str, Found], *, delete: bool = False) -> Plan:
    """Steps from `existing` to `declared`; topics of ours that nobody declares are deleted only if `delete` says so.

    A redundant topic that exists is as its venue's, unless it is declared itself: they grow together.
    """
    wanted = {topic.name: topic for topic in declared}
    wanted |= {name: replace(wanted[venue], name=name) for name in sorted(existing) if name not in wanted and (venue := venue_topic(name)) in wanted}
    surplus = sorted(name for name in existing if name not in wanted and name.split(".")[0] in (MARKET, LETTERS))
    differences = [d for topic in wanted.values() for d in differences_of(topic, existing.get(topic.name))]
    differences += [Difference(name, "topic", "", f"{existing[name].partitions} partitions") for name in surplus]
    steps = [step for topic in wanted.values() for step in _steps(topic, existing.get(topic.name))]
    refused = [_shrink(topic, existing[topic.name]) for topic in wanted.values() if topic.name in existing and _is_smaller(topic, existing[topic.name])]
    if delete:
        steps += [Step(Action.DELETE, name, says="and every record in it", warns="what is not in the tables yet is lost") for name in surplus]
    else:
        refused += [f"{name}: nobody declares it; `k2 topics apply --delete --yes` deletes it and its records" for name in surplus]
    return Plan(differences, steps, refused)


def differences_of(topic: Declared, found: Found | None) -> list[Difference]:
    """What of a topic is not as declared; settings that nobody declares are none."""
    if found is None:
        return [Difference(topic.name, "topic", f"{topic.partitions} partitions", "")]
    number = [Difference(topic.name, PARTITIONS, str(topic.partitions), str(found.partitions))] if topic.partitions != found.partitions else []
    return number + [Difference(topic.name, key, value, found.config.get(key, "")) for key, value in _changes(topic, found).items()]


def _steps(topic: Declared, found: Found | None) -> list[Step]:
    if found is None:
        return [Step(Action.CREATE, topic.name, topic.partitions, topic.config, f"with {topic.partitions} partitions, {_listed(topic.config)}")]
    steps = []
    if changes := _changes(topic, found):
        said = ", ".join(f"{key} {found.config.get(key) or 'unset'} -> {value}" for key, value in changes.items())
        steps.append(Step(Action.CONFIGURE, topic.name, config=changes, says=said))
    if topic.partitions > found.partitions:
        steps.append(Step(Action.GROW, topic.name, topic.partitions, says=f"{found.partitions} -> {topic.partitions} partitions", warns=GROWTH))
    return steps


def _changes(topic: Declared, found: Found) -> dict[str, str]:
    return {key: value for key, value in topic.config.items() if _normal(value) != _normal(found.config.get(key, ""))}


def _normal(value: str) -> tuple[str, ...]:
    """Lists of a topic's settings have no order: `compact,delete`."""
    return tuple(sorted(part.strip() for part in value.split(",")))


def _is_smaller(topic: Declared, found: Found) -> bool:
    return topic.partitions < found.partitions


def _shrink(topic: Declared, found: Found) -> str:
    return (
        f"{topic.name}: {topic.partitions} partitions declared, {found.partitions} found, and partitions never go away. "
        f"Declare {found.partitions}, or move the records to a topic of {topic.partitions} with `k2 topics migrate`"
    )


def _listed(config: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in config.items()) or "the log's defaults"
