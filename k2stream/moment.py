"""Times as people write them."""

from datetime import UTC, datetime

from k2stream.errors import QueryError


def moment_of(name: str, text: str | None) -> datetime | None:
    """An ISO 8601 time as an aware one, UTC unless it says otherwise; raises QueryError, with the name of option or parameter, if it is none."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{name} {text}: expected an ISO 8601 time, as in 2014-03-03T10:00 or 2014-03-03T10:00+11:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
