"""Trouble that no service mends by coming back: this machine's own files, and settings that name nothing."""

import sqlite3
from collections.abc import Iterator
from errno import EACCES, EDQUOT, EEXIST, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS

from sqlalchemy.exc import ArgumentError

FILE_CODES = frozenset({EACCES, EDQUOT, EEXIST, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS})


def is_of_this_machine(exc: BaseException) -> bool:
    """True if a file of this machine or the form of an address is why `exc` was raised; waiting for a service would be in vain."""
    return any(_is_local(cause) for cause in _causes(exc))


def _is_local(exc: BaseException) -> bool:
    if isinstance(exc, OSError):
        return exc.errno in FILE_CODES and "://" not in str(exc.filename or "")
    # Exactly ValueError: what a service answered and nobody can parse is raised as its children.
    return isinstance(exc, sqlite3.Error | ArgumentError | ImportError) or type(exc) is ValueError


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
