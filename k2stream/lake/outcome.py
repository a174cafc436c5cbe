"""What an exception of a commit says of the commit, by kind of catalog.

The commit loop looks at the table whatever this says: an answer may lie. The sorting decides what is logged and counted, how long
the loop pauses, and what it reports if the time is over before a look succeeded.
"""

from enum import StrEnum

from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchTableError,
    OAuthError,
    TooManyRequestsError,
    UnauthorizedError,
)
from requests.exceptions import ConnectTimeout, InvalidJSONError, RequestException
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from k2stream.object_store import is_rest


class Outcome(StrEnum):
    """What became of a commit, as far as its exception tells."""

    NOT_COMMITTED = "not committed"
    UNKNOWN = "unknown"
    COMMITTED = "committed"
    """The catalog said yes; what else it said cannot be read."""


class Kind(StrEnum):
    """How a catalog decides."""

    SQL = "sql"
    """By one UPDATE in a database, after this process wrote the metadata."""
    REST = "rest"
    """By one POST; the server writes the metadata."""


Rule = tuple[Kind | None, tuple[type[BaseException], ...], Outcome]

RULES: tuple[Rule, ...] = (
    (None, (CommitFailedException, NoSuchTableError), Outcome.NOT_COMMITTED),
    (None, (CommitStateUnknownException,), Outcome.UNKNOWN),  # 500, 502, 504
    (Kind.REST, (BadRequestError, UnauthorizedError, ForbiddenError, OAuthError), Outcome.NOT_COMMITTED),  # 400, 401, 403
    (Kind.REST, (AuthorizationExpiredError, TooManyRequestsError, NotImplementedError), Outcome.NOT_COMMITTED),  # 419, 429, 501
    (Kind.REST, (ConnectTimeout,), Outcome.NOT_COMMITTED),
    (Kind.REST, (ValidationError, InvalidJSONError), Outcome.COMMITTED),
    (Kind.REST, (RequestException, OSError), Outcome.UNKNOWN),
    (Kind.SQL, (IntegrityError, PoolTimeout), Outcome.NOT_COMMITTED),
    (Kind.SQL, (ConnectionError, TimeoutError), Outcome.UNKNOWN),
    (Kind.SQL, (OSError,), Outcome.NOT_COMMITTED),  # the metadata could not be written
)
"""The first that fits holds; what none fits is unknown (503 too: a gateway may say it after it forwarded)."""

NOT_CONNECTED = ("connection failed", "connection timeout expired", "connection is bad", "unable to open database")
"""Words of drivers whose connection was never made."""


def kind_of(catalog: Catalog) -> Kind:
    """By the catalog's address."""
    return Kind.REST if is_rest(catalog.properties.get("uri", "")) else Kind.SQL


def outcome_of(exc: BaseException, kind: Kind) -> Outcome:
    """What `exc`, raised by a commit, says of it."""
    if kind is Kind.SQL and isinstance(exc, DBAPIError):
        return _outcome_of_database(exc)
    if kind is Kind.REST and _was_never_sent(exc):
        return Outcome.NOT_COMMITTED
    return next((outcome for k, types, outcome in RULES if k in (None, kind) and isinstance(exc, types)), Outcome.UNKNOWN)


def _outcome_of_database(exc: DBAPIError) -> Outcome:
    """A statement that failed was in a transaction that then was not committed; COMMIT itself has no statement."""
    is_before = exc.statement is not None or any(words in str(exc.orig) for words in NOT_CONNECTED)
    return Outcome.NOT_COMMITTED if is_before else Outcome.UNKNOWN


def _was_never_sent(exc: BaseException) -> bool:
    """True for a connection that was refused, or a name that nobody knows."""
    cause = exc.args[0] if isinstance(exc, RequestException) and exc.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)
