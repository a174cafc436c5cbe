"""Errors of disks, catalogs and libraries as one plain sentence: what, where, and what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchTableError,
    OAuthError,
    ServerError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from requests.exceptions import RequestException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from k2stream.errors import K2Error, LakeError

Conflict = CommitFailedException
"""What a catalog raises when the head is not the one that a commit requires."""

ADVICE = {
    errno.ENOSPC: "the disk is full. Free some space; nothing is lost, the same rows are written again",
    errno.EDQUOT: "the disk quota is used up. Free some space or raise it; nothing is lost, the same rows are written again",
    errno.EACCES: "this user may not write there. Give it the right, or name another place with K2_HOME or K2_WAREHOUSE",
    errno.EPERM: "this user may not write there. Give it the right, or name another place with K2_HOME or K2_WAREHOUSE",
    errno.EROFS: "the file system is read-only. Mount it for writing, or name another place with K2_HOME or K2_WAREHOUSE",
    errno.ENOENT: "it does not exist. If it was removed by hand, put it back or start over with `k2 reset`",
    errno.EEXIST: "it is not a folder. Move that file away, or name another place with K2_HOME or K2_WAREHOUSE",
    errno.ENOTDIR: "a file lies where a folder should be. Move it away, or name another place with K2_HOME or K2_WAREHOUSE",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n)",
    errno.EIO: "the disk reports an error. Check its health before going on",
}

SQL_ADVICE = (
    ("disk is full", errno.ENOSPC),
    ("readonly database", errno.EACCES),
    ("unable to open database", errno.EACCES),
    ("disk I/O error", errno.EIO),
)

STORE_ADVICE = (
    (r"NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN", "the store does not answer ({}). It is tried again"),
    (r"ACCESS_DENIED|SIGNATURE|INVALID_ACCESS_KEY|HTTP status: 403", "the store refuses the key ({}). Mend K2_S3_ACCESS_KEY_ID and K2_S3_SECRET_ACCESS_KEY"),
    (r"NO_SUCH_BUCKET|Bucket .* not found", "the bucket does not exist ({}). Make it, or name another with K2_WAREHOUSE"),
)
"""Words of Arrow's S3 errors, which have no class of their own."""

SILENT = (ServiceUnavailableError, ServerError, CommitStateUnknownException, RequestException, ConnectionError, TimeoutError)
REFUSED = (UnauthorizedError, ForbiddenError, OAuthError)

PASSWORD = re.compile(r"(://[^/\s:@]*:)[^\s/]+(@)")
"""Between user and host of a URL."""


@contextmanager
def translated(doing: str, where: str) -> Iterator[None]:
    """Let what is raised inside leave as LakeError: `doing` is what failed, `where` the file, table or catalog."""
    try:
        yield
    except K2Error:
        raise
    except Exception as exc:
        raise LakeError(sentence(exc, doing, where)) from exc


def sentence(exc: BaseException, doing: str, where: str) -> str:
    """What a person should read when `exc` was raised while `doing` something at `where`; without passwords."""
    place, advice = _advice(exc)
    return without_password(f"Cannot {doing} at {place or where}: {advice}.")


def without_password(text: str) -> str:
    """`text` with the password of every URL in it replaced by stars."""
    return PASSWORD.sub(r"\1***\2", text)


def _advice(exc: BaseException) -> tuple[str | None, str]:
    if isinstance(exc, SQLAlchemyError):
        return None, _sql_advice(_first_line(exc.orig) if isinstance(exc, DBAPIError) and exc.orig else str(exc.args[0] if exc.args else exc))
    if isinstance(exc, OSError) and exc.errno in ADVICE:
        return exc.filename, ADVICE[exc.errno]
    if isinstance(exc, NoSuchTableError):
        return None, "the table does not exist. Start a worker once: it makes the tables"
    if isinstance(exc, SILENT):
        return None, f"the catalog or the store does not answer ({_reason(exc)}). It is tried again"
    if isinstance(exc, REFUSED):
        return None, f"the catalog refuses who asks ({_first_line(exc)}). Mend K2_CATALOG_TOKEN or K2_CATALOG_CREDENTIAL"
    if isinstance(exc, ModuleNotFoundError):
        return None, f"the package {exc.name} is not installed. `pip install 'k2stream[postgres]'` brings it"
    if isinstance(exc, OSError):
        for words, advice in STORE_ADVICE:
            if re.search(words, str(exc)):
                return None, advice.format(_first_line(exc))
    return None, f"{type(exc).__name__}: {_first_line(exc)}"


def _sql_advice(text: str) -> str:
    for words, code in SQL_ADVICE:
        if words in text:
            return ADVICE[code]
    if "database is locked" in text:
        return "another process holds the catalog's lock for too long. Look for one that hangs (k2 doctor)"
    if "connection" in text and ("failed" in text or "timeout" in text):
        if "authentication failed" in text or "no password supplied" in text:
            return f"the catalog's database refuses who asks ({text}). Mend K2_CATALOG_URI or K2_CATALOG_PASSWORD"
        return f"the catalog's database does not answer ({text}). It is tried again"
    return f"the catalog's database says: {text}"


def _reason(exc: BaseException) -> str:
    """The innermost cause of an HTTP client's chain, without the address in front of it."""
    inner = next((cause for cause in (getattr(exc, "reason", None), *reversed(exc.args)) if isinstance(cause, BaseException)), None)
    return _reason(inner) if inner is not None else _first_line(exc).rpartition("): ")[2]


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [""])[0]
