"""Exceptions of a commit, sorted: what was surely not committed, what may have been, what was."""

import errno

import psycopg
import pytest
import requests
from pydantic import BaseModel, ValidationError
from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    ServerError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from k2stream.lake.outcome import Kind, Outcome, outcome_of
from k2stream.lake.trouble import sentence, without_password
from k2stream.worker_process import free_port

NO, UNKNOWN, YES = Outcome.NOT_COMMITTED, Outcome.UNKNOWN, Outcome.COMMITTED


def operational(statement: str | None, words: str) -> OperationalError:
    return OperationalError(statement, {}, psycopg.OperationalError(words))


def unreadable() -> ValidationError:
    class Answer(BaseModel):
        metadata: int

    with pytest.raises(ValidationError) as caught:
        Answer.model_validate_json("{}")
    return caught.value


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(("exc", "outcome"), [(CommitFailedException("409"), NO), (CommitStateUnknownException("500"), UNKNOWN), (RuntimeError("?"), UNKNOWN)])
def test_what_every_catalog_says(kind: Kind, exc: Exception, outcome: Outcome) -> None:
    """A lost race is certain; what nobody has thought of is not."""
    assert outcome_of(exc, kind) is outcome


@pytest.mark.parametrize(
    ("exc", "outcome"),
    [
        (operational("UPDATE iceberg_tables ...", "server closed the connection unexpectedly"), NO),
        (operational(None, "server closed the connection unexpectedly"), UNKNOWN),
        (operational(None, "terminating connection due to administrator command"), UNKNOWN),
        (operational(None, 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'), NO),
        (operational(None, "connection timeout expired"), NO),
        (IntegrityError("INSERT", {}, Exception("duplicate key")), NO),
        (OSError(errno.ENOSPC, "No space left on device"), NO),
        (OSError("When completing multiple part upload ...: AWS Error NETWORK_CONNECTION"), NO),
        (ConnectionError("?"), UNKNOWN),
    ],
)
def test_sql_is_unknown_around_the_commit_of_the_database_only(exc: Exception, outcome: Outcome) -> None:
    """A statement is in a transaction that then was not committed; COMMIT is an error without a statement."""
    assert outcome_of(exc, Kind.SQL) is outcome


@pytest.mark.parametrize(
    ("exc", "outcome"),
    [
        (BadRequestError("400"), NO),
        (UnauthorizedError("401"), NO),
        (ForbiddenError("403"), NO),
        (ServiceUnavailableError("503"), UNKNOWN),
        (ServerError("599"), UNKNOWN),
        (requests.exceptions.ConnectTimeout(), NO),
        (requests.exceptions.ReadTimeout(), UNKNOWN),
        (requests.ConnectionError(ProtocolError("Connection aborted.")), UNKNOWN),
        (requests.ConnectionError(MaxRetryError(None, "/", NewConnectionError(None, "refused"))), NO),  # type: ignore[arg-type] # what they were asked is not looked at
        (requests.exceptions.JSONDecodeError("Expecting value", "", 0), YES),
        (unreadable(), YES),
    ],
)
def test_rest_is_unknown_once_the_request_was_sent(exc: Exception, outcome: Outcome) -> None:
    """4xx is an answer, a refused connection was never sent, an unreadable answer of 200 is a yes."""
    assert outcome_of(exc, Kind.REST) is outcome


def test_a_refused_connection_is_what_requests_says_it_is() -> None:
    """The chain of causes that the sorting reads is the real one."""
    with pytest.raises(requests.ConnectionError) as caught:
        requests.post(f"http://127.0.0.1:{free_port()}/", timeout=5)
    assert outcome_of(caught.value, Kind.REST) is NO
    assert sentence(caught.value, "commit", "trades") == (
        "Cannot commit at trades: the catalog or the store does not answer "
        "(Failed to establish a new connection: [Errno 111] Connection refused). It is tried again."
    )


def test_a_password_is_in_no_sentence() -> None:
    """Neither in the place nor in the cause, whatever characters it has."""
    uri = "postgresql+psycopg://k2:s3cr@t:x@db.example:5432/lake"
    said = sentence(ValueError(f"could not parse {uri}"), "open the Iceberg catalog", uri)
    assert said == (
        "Cannot open the Iceberg catalog at postgresql+psycopg://k2:***@db.example:5432/lake: "
        "ValueError: could not parse postgresql+psycopg://k2:***@db.example:5432/lake."
    )
    assert without_password("http://host:8181/v1 and sqlite:////home/k2/catalog.db") == "http://host:8181/v1 and sqlite:////home/k2/catalog.db"
