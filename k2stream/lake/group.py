"""One table, one consumer group: partitions are shared out inside a group only, so a second one would read all of them again."""

from dataclasses import replace

from k2stream.errors import SettingsError
from k2stream.lake.head import Head


def claimed(head: Head, table: str, group: str) -> Head:
    """`head` as a worker of `group` goes on from it: its commits name the group. Raises SettingsError if it is another group's."""
    owner = head.carried.group
    if owner is not None and owner != group:
        raise SettingsError(
            f"{table} belongs to group {owner!r}, this worker is of group {group!r}: both would read every partition and commit in each "
            f"other's way. Set K2_APP_ID={owner}, or tables of its own (K2_NAMESPACE); if {owner!r} is gone for good, `k2 adopt --group` "
            f"hands the table to {group!r}."
        )
    return head if owner == group else replace(head, carried=replace(head.carried, group=group))
