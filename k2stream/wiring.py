"""Where the edges meet: one data type's capture, built from settings when the worker starts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from k2stream.address import without_password
from k2stream.app import K2App
from k2stream.capture.capture import Capture
from k2stream.capture.edges import Edges
from k2stream.capture.plan import Plan
from k2stream.clock import SystemClock
from k2stream.crash import on_step_of
from k2stream.deadletter.letters import LetterBox
from k2stream.decode.decoder import Decoder
from k2stream.decode.registry import open_registry
from k2stream.dedup.bloom import SeenFilter
from k2stream.errors import LakeError, SettingsError
from k2stream.gaps import Tracker
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.local import is_of_this_machine
from k2stream.lake.table import TradesLake
from k2stream.query.engine import Engine
from k2stream.query.origin import rows_of
from k2stream.query.seen import TableSeen
from k2stream.records import TopicPartition
from k2stream.rows import SCHEMA_OF_DATA_TYPE
from k2stream.settings import Settings
from k2stream.state.open import open_store, turn_of
from k2stream.state.watched import CAUSE, WatchedStore
from k2stream.transport.base import BatchConsumer
from k2stream.validate import Limits
from k2stream.watch import Asked
from k2stream.window import WindowLimits


def plan_of(settings: Settings, data_type: str) -> Plan:
    """The settings of one data type's capture."""
    return Plan(
        data_type=data_type,
        window=WindowLimits(settings.window_rows, settings.window_bytes, settings.window_ms),
        limits=Limits(max_ahead_us=settings.max_ahead_ms * 1000, max_age_us=settings.max_age_ms * 1000),
        commit_timeout_seconds=settings.commit_timeout_ms / 1000,
        start=settings.start,
        new_filter=lambda: SeenFilter(settings.dedup_memory_bytes, settings.dedup_horizon_ms * 1000, settings.dedup_tolerance_ms * 1000),
        new_tracker=lambda: Tracker(data_type, settings.gap_small_rows),
    )


def open_capture(app: K2App, data_type: str, rows: TableDeclaration, events: TableDeclaration, dead_letters: TableDeclaration | None = None) -> Capture:
    """Open table, state, registry and look-up; raises K2Error with one plain sentence where something is missing.

    Only the table must be there; the registry and Redis are asked from then on, and what they say is shown.
    """
    settings, clock = app.settings, SystemClock()
    on_step = on_step_of(settings.crash_at)
    with _local_trouble_ends():
        table = TradesLake.open(settings, rows, events, dead_letters, clock=clock, on_step=on_step)
    own, registry = open_store(settings), open_registry(settings)
    store, turn = WatchedStore(own, app.health), turn_of(own, settings)
    if turn is not None:
        table.take_turns(turn)
    if settings.redis_url:
        app.watch.add(Asked(CAUSE, f"Redis at {without_password(settings.redis_url)}", lambda: asyncio.to_thread(store.ping)))
    if settings.registry_url:
        where = f"The schema registry {without_password(settings.registry_url)}"
        app.watch.add(Asked("registry", where, lambda: asyncio.to_thread(registry.ping)))
    app.on_report("commits", lambda: {name: committer.as_json() for name, committer in table.committers().items()})
    letters, engine = LetterBox(app.sink, settings.partitions), Engine.of(settings)
    edges = Edges(
        consumer=lambda: cast(BatchConsumer, app.consumer),  # every transport of ours makes one
        log=app.sink,
        decoder=Decoder(SCHEMA_OF_DATA_TYPE[data_type], registry),
        table=table,
        lookup=TableSeen(table.files, settings.dedup_tolerance_ms * 1000, engine=engine),
        rows_of=lambda snapshot_id, tp, first, last: rows_of(table.files(snapshot_id), TopicPartition(*tp), first, last, engine=engine),
        store=store,
        letters=letters.publish,
        on_step=on_step,
    )
    return Capture(plan_of(settings, data_type), edges, clock=clock, health=app.health, on_fatal=app.stop_for)


@contextmanager
def _local_trouble_ends() -> Iterator[None]:
    """A file of this machine that cannot be used is no service that may come: it ends the start, as a wrong setting does."""
    try:
        yield
    except LakeError as exc:
        if is_of_this_machine(exc):
            raise SettingsError(str(exc)) from exc
        raise
