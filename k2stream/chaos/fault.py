"""A fault: its name, what it does to a scene, and how often it counts."""

from collections.abc import Callable
from dataclasses import dataclass

from k2stream.chaos.scene import Scene


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the list."""

    name: str
    """As scorecards and `--only` write it."""
    says: str
    """What is done, for a person."""
    play: Callable[[Scene], str]
    """Do it and undo it; returns what it hit. What follows from it is not waited for."""
    count: int = 1
    """How many faults it is: two workers killed are two."""
    weight: float = 1.0
    """How often it is chosen, once each was played."""
