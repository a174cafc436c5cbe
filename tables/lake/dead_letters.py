"""`dead_letters`: every record that could not become a row, with its bytes as they came; one row a letter, appended from the outbox."""

from k2stream.deadletter.rows import DEAD_LETTERS

__all__ = ["DEAD_LETTERS"]
