"""Which data files can hold a row at all, by the bounds that their manifests keep."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from k2stream.table_file import TableFile

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def moment(time_us: int) -> datetime:
    """Aware datetime of microseconds since the epoch; beyond the years 1 to 9999 the nearest there is."""
    return EPOCH + min(max(time_us, FIRST_US), LAST_US) * MICROSECOND


def micros(time: datetime) -> int:
    """Microseconds since the epoch of an aware datetime."""
    return (time - EPOCH) // MICROSECOND


def overlapping(files: Sequence[TableFile], column: str, *, first: int | str, last: int | str) -> list[TableFile]:
    """Files that may hold a value of `first..last`, both included; a file without bounds may hold any."""
    return [file for file in files if may_hold(file, column, first, last)]


def may_hold(file: TableFile, column: str, first: int | str, last: int | str) -> bool:
    """False only if the file's bounds exclude every value of `first..last`."""
    lower, upper = bound(file.lower.get(column)), bound(file.upper.get(column))
    is_below = upper is not None and upper < first  # type: ignore[operator]  # a column's bounds and values are of one type
    is_above = lower is not None and lower > last  # type: ignore[operator] # bounds are of one type per column
    return not (is_below or is_above)


def bound(value: object) -> int | str | None:
    """A manifest's bound as it is compared: times as microseconds, no bound as None."""
    if isinstance(value, datetime):
        return micros(value if value.tzinfo else value.replace(tzinfo=UTC))
    return value if isinstance(value, int | str) else None
