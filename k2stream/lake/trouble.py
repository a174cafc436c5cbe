"""Errors of disks, catalogs and libraries as one plain sentence: what, where, and what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ServiceUnavailableError
from sqlalchemy.exc import SQLAlchemyError

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
        return None, _sql_advice(str(exc.args[0] if exc.args else exc))
    if isinstance(exc, OSError) and exc.errno in ADVICE:
        return exc.filename, ADVICE[exc.errno]
    if isinstance(exc, NoSuchTableError):
        return None, "the table does not exist. Start a worker once: it makes the tables"
    if isinstance(exc, ServiceUnavailableError | ConnectionError | TimeoutError):
        return None, f"the catalog or the store does not answer ({_first_line(exc)}). It is tried again"
    return None, f"{type(exc).__name__}: {_first_line(exc)}"


def _sql_advice(text: str) -> str:
    for words, code in SQL_ADVICE:
        if words in text:
            return ADVICE[code]
    if "database is locked" in text:
        return "another process holds the catalog's lock for too long. Look for one that hangs (k2 doctor)"
    return f"the catalog's database says: {text}"


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [""])[0]
