"""`k2 doctor`: what is configured, what answers, what is wrong and how to mend it; changes nothing."""

import asyncio
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from k2stream.address import without_password
from k2stream.audit import AUDITED, MAIN
from k2stream.capture.start import Bounds, check_bounds, check_marks
from k2stream.checkout import find_root
from k2stream.errors import HomeError, K2Error, StateError, TransportError
from k2stream.home import Home
from k2stream.lake.offsets import Vector
from k2stream.records import TopicPartition
from k2stream.settings import Settings, load_settings, process_environment
from k2stream.topics import resolve

Verdict = Literal["ok", "note", "wrong"]

ANSWER_SECONDS = 3.0
"""A service that takes longer to say hello is as good as away."""

WAITING = ("open", "parked", "file")
"""States of letters that nothing becomes of unless somebody does something."""

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
    findings = [*_settings(settings)]
    for what, check in CHECKS.items():
        findings.append(_told(what, check, settings))
        if what == "catalog" and findings[-1].verdict == "ok":
            findings += (found for name, look in TABLES.items() if (found := _told(name, look, settings)).says)
    return findings


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
    from k2stream.lake.listing import tables_of

    if not settings.catalog_uri and not settings.home_path("catalog.db").exists():
        return Finding("catalog", "note", f"SQLite, {settings.home_path('catalog.db')}: not there yet; the first worker makes it")
    with closing(open_catalog(settings)) as catalog:
        tables = tables_of(catalog, settings)
    where = without_password(settings.catalog_uri) if settings.catalog_uri else f"SQLite, {settings.home_path('catalog.db')}"
    return Finding("catalog", "ok", f"{where}: {len(tables)} tables in {settings.namespace}")


def _rows(settings: Settings, table: str) -> Finding:
    """A table of rows set against the topics that it is read from; says nothing where neither is there."""
    from k2stream.lake.catalog import open_catalog
    from k2stream.lake.group import claimed
    from k2stream.lake.reader import TableReader

    name = f"{settings.namespace}.{table}"
    with closing(TableReader(open_catalog(settings), settings, table)) as reader:
        head = reader.head() if reader.exists() else None
        bounds = _bounds_of(settings, AUDITED[table])  # after the head: a worker goes on meanwhile, and its table is not to be ahead of the log
        if head is None:
            topics = ", ".join(sorted({tp.topic for tp in bounds}))
            is_in_use = topics or table == MAIN
            return Finding(table, "note", f"{name}: not there yet; the first worker makes it" + (topics and f" and reads {topics}") if is_in_use else "")
        claimed(head, name, settings.app_id)
    _compare(settings, head.vector, bounds)
    rows = sum(entry.counts.rows - entry.counts.retired for entry in head.vector.values())
    says = f"{name}: {rows:,} rows, {len(head.vector)} partitions, snapshot {head.snapshot_id}"
    return _against_log(table, says, head.vector, bounds)


def _compare(settings: Settings, vector: Vector, bounds: Bounds) -> None:
    """As a worker's start does. Raises VectorMissing if the vector is of another log, TransportError if the log cannot serve it or does not answer."""
    tps = vector.keys() & bounds.keys()
    check_bounds(vector, tps, bounds)
    if any(vector[tp].mark for tp in tps):
        asyncio.run(_compare_marks(settings, vector, tps, bounds))


async def _compare_marks(settings: Settings, vector: Vector, tps: set[TopicPartition], bounds: Bounds) -> None:
    from k2stream.transport.open import open_sink

    sink = open_sink(settings)
    try:
        await check_marks(sink, vector, tps, bounds)
    finally:
        await sink.close()


def _against_log(table: str, says: str, vector: Vector, bounds: Bounds) -> Finding:
    if not bounds:
        return Finding(table, "ok", says)
    to_read = sum(end - (vector[tp].next if tp in vector else begin) for tp, (begin, end) in bounds.items())
    says += f"; {to_read:,} offsets to be read" if to_read else "; nothing to be read"
    gone = sorted({tp.topic for tp in vector} - {tp.topic for tp in bounds})
    if gone:
        return Finding(table, "note", f"{says}; read before, and now not in the log or not asked for by K2_TOPICS: {', '.join(gone)}")
    return Finding(table, "ok", says)


def _bounds_of(settings: Settings, data_type: str) -> Bounds:
    """Of the topics that workers read for a data type; none where there is no log, or none that answers, which has its own line."""
    from k2stream.transport.ends import bounds_of

    if not settings.broker and not settings.home_path("log").is_dir():
        return {}
    patterns = [pattern.strip() for pattern in settings.topics.split(",")]
    try:
        return bounds_of(settings, lambda topics: resolve(patterns, topics, data_type))
    except TransportError:
        return {}


def _letters(settings: Settings) -> Finding:
    """Where the dead letters stand; says nothing where there never was one."""
    from k2stream.deadletter.standing import DeadLetters

    with DeadLetters(settings) as letters:
        found = letters.standing()
    if found is None:
        return Finding("letters", "ok", "")
    states = Counter(found["state"].to_pylist())
    says = f"{settings.namespace}.dead_letters: {found.num_rows:,} records died" + "".join(f", {count:,} {state}" for state, count in sorted(states.items()))
    if any(states[state] for state in WAITING):
        return Finding("letters", "note", f"{says}; `k2 dlq list` says why, docs/dead_letters.md what to do")
    return Finding("letters", "ok", says)


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

TABLES: dict[str, Callable[[Settings], Finding]] = {**{table: partial(_rows, table=table) for table in AUDITED}, "letters": _letters}
"""Looked at where there is a catalog; one that is not in use here says nothing and gets no line."""
