"""Whose turn it is to commit to a table: advice that saves lost attempts, never what keeps a table right.

Writers of one table want its head at the same moment, and all but one of them lose an attempt. One that asks for a turn before it
reads the head, and gives it back when the catalog has answered, loses none. A turn may be refused, lost or held by two: the
required head is the guard, whatever a turn said.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from k2stream.clock import Deadline

Turn = Callable[[str, Deadline], AbstractContextManager[None]]
"""(name of the table, budget of the commit) -> a context inside which an attempt is made; entering it may wait, and never raises."""


def no_turn(_table: str, _deadline: Deadline) -> AbstractContextManager[None]:
    """Nobody to ask: every writer tries at once."""
    return nullcontext()
