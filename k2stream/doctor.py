"""`k2 doctor`: what is configured, what answers, what is wrong and how to mend it; changes nothing."""

import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from k2stream.address import without_password
from k2stream.checkout import find_root
from k2stream.errors import HomeError, K2Error, StateError, VectorMissing
from k2stream.home import Home
from k2stream.settings import Settings, load_settings, process_environment

Verdict = Literal["ok", "note", "wrong"]

ANSWER_SECONDS = 3.0
"""A service that takes longer to say hello is as good as away."""

ROOM_BYTES = 1 << 30
"""Less room than this is worth a note: a day of one busy exchange is about so much."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's list."""

    what: str
    verdict: Verdict
    says: str
    """What is configured and what it answered; for `wrong` also how to mend it."""


def examine() -> list[Finding]:
    """Look at everything that a worker needs, in the order in which it needs it."""
    try:
        settings = load_settings()
    except K2Error as exc:
        return [Finding("settings", "wrong", str(exc))]
    return [*_settings(settings), *(_told(what, check, settings) for what, check in CHECKS.items())]


def is_well(findings: list[Finding]) -> bool:
    """True if nothing is wrong; notes are not."""
    return all(finding.verdict != "wrong" for finding in findings)


def _told(what: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except K2Error as exc:
        return Finding(what, "wrong", str(exc))
    except Exception as exc:  # a doctor that falls ill over what it finds helps nobody
        return Finding(what, "wrong", f"unexpected {type(exc).__name__}: {exc}. Please report it.")


def _settings(settings: Settings) -> Iterator[Finding]:
    known = {f"K2_{name.upper()}" for name in Settings.model_fields}
    given = sorted(name for name in process_environment() if name.startswith("K2_") and name.upper() in known)
    yield Finding("settings", "ok", f"{len(given)} of {len(known)} set" + (f": {', '.join(given)}" if given else ", the rest as by default"))
    strange = sorted(name for name in process_environment() if name.startswith("K2_") and name.upper() not in known and not name.startswith("K2_TEST_"))
    if strange:
        yield Finding("settings", "note", f"{', '.join(strange)}: no such setting, so without effect; README.md lists them all")


def _application(settings: Settings) -> Finding:
    return Finding("agents", "ok", f"in {find_root()}")


def _home(settings: Settings) -> Finding:
    path = settings.home_path()
    home = Home.find(path)
    if home is None:
        if path.is_dir() and any(path.iterdir()):
            raise HomeError(f"{path} is no home of k2 and not empty. Set K2_HOME to a new or empty folder.")
        return Finding("home", "note", f"{path}: not there yet; the first worker or demo makes it")
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise HomeError(f"K2_HOME ({path}) cannot be written. Give yourself the right to, or set K2_HOME to another folder.")
    free = home.free_bytes()
    says = f"{path}: {', '.join(home.made()) or 'empty'}; {free / (1 << 30):,.1f} GB free"
    return Finding("home", "ok" if free > ROOM_BYTES else "note", says if free > ROOM_BYTES else f"{says}, which is little")


def _log(settings: Settings) -> Finding:
    if not settings.broker and not settings.home_path("log").is_dir():
        return Finding("log", "note", f"embedded, {settings.home_path('log')}: not there yet; the first worker, feed or demo makes it")
    topics = asyncio.run(_topics(settings))
    says = f"{settings.broker_url()}: {len(topics)} topics, {sum(topics.values())} partitions"
    if settings.broker_security_protocol == "SASL_PLAINTEXT":
        return Finding("log", "note", f"{says}; without TLS, so everybody on the way can read, and with PLAIN also the password")
    return Finding("log", "ok", says)


async def _topics(settings: Settings) -> dict[str, int]:
    from k2stream.transport.open import open_sink

    sink = open_sink(settings)
    try:
        return dict(await sink.topics())
    finally:
        await sink.close()


def _catalog(settings: Settings) -> Finding:
    from k2stream.lake.catalog import open_catalog
    from k2stream.lake.group import claimed
    from k2stream.lake.reader import TableReader

    if not settings.catalog_uri and not settings.home_path("catalog.db").exists():
        return Finding("catalog", "note", f"SQLite, {settings.home_path('catalog.db')}: not there yet; the first worker makes it")
    name = f"{settings.namespace}.trades"
    with closing(TableReader(open_catalog(settings), settings, "trades")) as reader:
        if not reader.catalog.table_exists(reader.name):
            return Finding("catalog", "note", f"{name}: not there yet; the first worker makes it")
        try:
            head = claimed(reader.head(), name, settings.app_id)
        except VectorMissing as exc:
            return Finding("catalog", "wrong", str(exc))
    rows = sum(entry.counts.rows - entry.counts.retired for entry in head.vector.values())
    return Finding("catalog", "ok", f"{name}: {rows:,} rows, {len(head.vector)} partitions, snapshot {head.snapshot_id}")


def _state(settings: Settings) -> Finding:
    if settings.state == "memory":
        return Finding("state", "ok", "in memory, by K2_STATE; a restart reads it back from the tables")
    if not settings.redis_url:
        return _redis_server(settings)
    from k2stream.state.open import open_store

    with closing(open_store(settings)) as store:
        try:
            store.ping()
        except StateError as exc:  # Redis is expendable: a worker without it goes on, a little slower
            return Finding("state", "note", f"{exc} Until then workers keep their state in memory and in the tables.")
    return Finding("state", "ok", f"{without_password(settings.redis_url)} answers")


def _redis_server(settings: Settings) -> Finding:
    from k2stream.state.server import find_server

    binary = find_server(settings)
    if binary is None:
        return Finding("state", "note", "no Redis or Valkey binary found; workers keep their state in memory and in the tables")
    return Finding("state", "ok", f"workers start {binary}")


def _registry(settings: Settings) -> Finding:
    from k2stream.decode.registry import open_registry

    if not settings.registry_url:
        return Finding("registry", "ok", "local, under K2_HOME")
    open_registry(settings).ping()
    return Finding("registry", "ok", f"{without_password(settings.registry_url)} answers")


def _web(settings: Settings) -> Finding:
    from k2stream.web.port import require_free

    address = f"http://{settings.web_host}:{settings.web_port}"
    try:
        require_free(settings.web_host, settings.web_port)
    except K2Error:
        if _is_worker(address):
            return Finding("web", "ok", f"{address}: a worker answers there; a second one needs another K2_WEB_PORT")
        raise
    return Finding("web", "ok", f"{address} is free" + (", pages ask for K2_WEB_KEY" if settings.web_key else ""))


def _is_worker(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=ANSWER_SECONDS) as answer:  # noqa: S310 # our own pages
            return b'"ok"' in answer.read(4096)
    except urllib.error.HTTPError as exc:
        return exc.code == 503  # a worker that is not well is still a worker
    except (OSError, ValueError):
        return False


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "agents": _application,
    "home": _home,
    "log": _log,
    "catalog": _catalog,
    "state": _state,
    "registry": _registry,
    "web": _web,
}
