"""PostgreSQL's driver with an end to every answer, as a dialect of SQLAlchemy.

The server's own limits need a server that runs. TCP's need a machine that is silent, and that of a frozen server goes on acknowledging. So
the client counts, closes the connection, and says so: before COMMIT nothing was committed, after it the outcome is unknown and looked up.
"""

from typing import Any

import psycopg
from psycopg.abc import PQGen
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

DRIVER = "postgresql+bounded"
ANSWER_SECONDS = "answer_seconds"
"""Of the URL's query: how long an answer may take."""


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself when an answer does not come in time."""

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """As the base class does; raises OperationalError if that took too long."""
        try:
            return super().wait(gen, interval, timeout if timeout is not None else self.answer_seconds)
        except psycopg.errors._WaitTimeout as exc:  # noqa: SLF001 # it has no other name
            if timeout is not None:
                raise
            self.close()
            raise psycopg.OperationalError(f"connection timeout: no answer within {self.answer_seconds:g} s, it may be frozen") from exc


class BoundedDialect(PGDialect_psycopg):
    """PostgreSQL through such connections."""

    supports_statement_cache = True

    def connect(self, *arguments: Any, **parameters: Any) -> Any:
        seconds = parameters.pop(ANSWER_SECONDS, None)
        connection = BoundedConnection.connect(*arguments, **parameters)
        connection.answer_seconds = float(seconds) if seconds else None
        return connection


registry.register(DRIVER.replace("+", "."), __name__, BoundedDialect.__name__)
