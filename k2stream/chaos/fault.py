"""A fault: its name, what it does to a scene, and how often it hit."""

from collections.abc import Callable
from dataclasses import dataclass

from k2stream.chaos.scene import Scene


@dataclass(frozen=True, slots=True)
class Hit:
    """What a fault did."""

    says: str
    """Whom and what, for a person."""
    count: int = 1
    """How many faults it was: two workers killed are two, a request that never came is none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the list."""

    name: str
    """As scorecards and `--only` write it."""
    says: str
    """What is done, for a person."""
    play: Callable[[Scene], Hit]
    """Do it and undo it. What follows from it is not waited for."""
    weight: float = 1.0
    """How often it is chosen, once each was played."""
