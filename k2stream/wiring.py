"""Where the edges meet: one data type's capture, built from settings when the worker starts."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from k2stream.address import without_password
from k2stream.app import K2App
from k2stream.capture.capture import Capture
from k2stream.capture.edges import Edges
from k2stream.capture.plan import Plan
from k2stream.clock import SystemClock
from k2stream.crash import on_step_of
from k2stream.deadletter.letters import LetterBox
from k2stream.decode.decoder import Decoder
from k2stream.decode.registry import Registry, open_registry
from k2stream.dedup.bloom import SeenFilter
from k2stream.errors import LakeError, SettingsError
from k2stream.gaps import Tracker
from k2stream.instruments.changes import judge_changes
from k2stream.instruments.closing import settle_and_write_changes
from k2stream.instruments.lookup import Source
from k2stream.lake.commit import Committer
from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.home_turn import HomeTurn
from k2stream.lake.local import is_of_this_machine
from k2stream.lake.replace import InstrumentsLake
from k2stream.lake.table import RowsLake
from k2stream.lake.turn import Turn
from k2stream.quality.checks import Checks, Thresholds
from k2stream.query.engine import Engine
from k2stream.query.origin import ORIGINS, rows_of
from k2stream.query.seen import TableSeen
from k2stream.records import TopicPartition
from k2stream.rows import NATIVE_IDS, SCHEMA_OF_DATA_TYPE
from k2stream.settings import Settings
from k2stream.state.memory import MemoryStore
from k2stream.state.open import open_store, turn_of
from k2stream.state.watched import CAUSE, WatchedStore
from k2stream.transport.base import BatchConsumer
from k2stream.validate import Limits
from k2stream.watch import Asked
from k2stream.window import WindowLimits

REFERENCE_DATA = "reference_data"

NO_FILTER_BYTES = 1 << 10
"""The least that a filter can have."""


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
        new_checks=lambda: Checks(data_type, _thresholds(settings)) if settings.quality else None,
    )


def _thresholds(settings: Settings) -> Thresholds:
    return Thresholds(settings.quality_price_move_percent, settings.quality_price_deviations, settings.quality_volume_times, settings.quality_stale_ms * 1000)


def open_capture(
    app: K2App,
    data_type: str,
    rows: TableDeclaration,
    events: TableDeclaration,
    dead_letters: TableDeclaration | None = None,
    quality: TableDeclaration | None = None,
) -> Capture:
    """Open table, state, registry and look-up; raises K2Error with one plain sentence where something is missing.

    Only the table must be there; the registry and Redis are asked from then on, and what they say is shown.
    """
    settings, clock, common = app.settings, SystemClock(), _common(app)
    on_step = on_step_of(settings.crash_at)
    with _local_trouble_ends():
        table = RowsLake.open(settings, rows, events, dead_letters, quality, clock=clock, on_step=on_step)
    common.join(table)
    native_id, box, engine = NATIVE_IDS[data_type], LetterBox(app.sink, settings), Engine.of(settings)
    edges = Edges(
        consumer=lambda: cast(BatchConsumer, app.consumer),  # every transport of ours makes one
        log=app.sink,
        decoder=Decoder(SCHEMA_OF_DATA_TYPE[data_type], common.registry, held=table.columns),
        table=table,
        lookup=TableSeen(table.files, settings.dedup_tolerance_ms * 1000, native_id=native_id, engine=engine),
        rows_of=lambda snapshot_id, tp, first, last: rows_of(table.files(snapshot_id), TopicPartition(*tp), first, last, native_id=native_id, engine=engine),
        store=common.store,
        letters=box.publish,
        on_step=on_step,
    )
    plan = replace(plan_of(settings, data_type), on_committed=lambda settled: app.committed(data_type, settled.rows))
    return Capture(plan, edges, clock=clock, health=app.health.of(data_type), on_fatal=app.stop_for)


def open_instruments(app: K2App, rows: TableDeclaration, events: TableDeclaration, dead_letters: TableDeclaration) -> Capture:
    """The same for reference data, which has no dedup by id and no sequences: nothing of it is remembered between two windows."""
    settings, clock, common = app.settings, SystemClock(), _common(app)
    on_step = on_step_of(settings.crash_at)
    with _local_trouble_ends():
        table = InstrumentsLake.open(settings, rows, events, dead_letters, clock=clock, on_step=on_step)
    common.join(table)
    edges = Edges(
        consumer=lambda: cast(BatchConsumer, app.consumer),
        log=app.sink,
        decoder=Decoder(SCHEMA_OF_DATA_TYPE[REFERENCE_DATA], common.registry, held=table.columns),
        table=table,
        lookup=_ask_nothing,
        rows_of=lambda _snapshot_id, _tp, _first, _last: ORIGINS.empty_table(),
        store=MemoryStore(),
        letters=LetterBox(app.sink, settings).publish,
        on_step=on_step,
    )
    plan = replace(
        plan_of(settings, REFERENCE_DATA),
        judge=judge_changes,
        settle_and_write=settle_and_write_changes,
        new_filter=lambda: SeenFilter(NO_FILTER_BYTES, 1, 0),
    )
    return Capture(plan, edges, clock=clock, health=app.health.of(REFERENCE_DATA), on_fatal=app.stop_for)


def source_of_instruments(app: K2App) -> Source | None:
    """What the live table of instruments follows on this worker; None while it reads no reference data."""
    capture = app.captures.get(REFERENCE_DATA)
    if capture is None:
        return None
    table = cast(InstrumentsLake, capture.edges.table)
    progress = capture.progress
    return Source(
        topics=lambda: {tp.topic for tp in progress.owned},
        commits=lambda: progress.commits,
        files=lambda: [] if (newest := table.head().snapshot_id) is None else table.files(newest),
        read=table.read,
        columns=table.names_of_columns,
    )


def _ask_nothing(exchange: object, symbol: object, native_id: object, time: object, snapshot_id: int) -> NDArray[np.bool_]:
    raise AssertionError(f"reference data has no ids to look up, asked for {native_id} of {exchange} {symbol} at {time} in {snapshot_id}")


@dataclass(frozen=True, slots=True)
class Common:
    """What all captures of a worker share."""

    store: WatchedStore
    turn: Turn | None
    registry: Registry
    committers: list[Committer] = field(default_factory=list)

    def join(self, table: RowsLake) -> None:
        """One more table that commits, in turn with others and counted."""
        if self.turn is not None:
            table.take_turns(self.turn)
        self.committers.extend(table.committers().values())

    def commits(self) -> dict[str, Counter[str]]:
        """By table what all that commit to it did together, for `/state`."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for committer in self.committers:
            counts[committer.name[1]].update(committer.as_json())
        return dict(counts)


_COMMON: WeakKeyDictionary[K2App, Common] = WeakKeyDictionary()
_OPENING = Lock()


def _common(app: K2App) -> Common:
    """Opened by whichever data type comes first: a worker has one Redis, however many tables it writes."""
    with _OPENING:
        if app not in _COMMON:
            _COMMON[app] = _open_common(app)
        return _COMMON[app]


def _open_common(app: K2App) -> Common:
    settings = app.settings
    own, registry = open_store(settings), open_registry(settings)
    common = Common(WatchedStore(own, app.health), turn_of(own, settings) or HomeTurn(settings.home_path("upkeep")), registry)
    if settings.redis_url:
        app.watch.add(Asked(CAUSE, f"Redis at {without_password(settings.redis_url)}", lambda: asyncio.to_thread(common.store.ping)))
    if settings.registry_url:
        where = f"The schema registry {without_password(settings.registry_url)}"
        app.watch.add(Asked("registry", where, lambda: asyncio.to_thread(registry.ping)))
    app.on_report("commits", common.commits)
    return common


@contextmanager
def _local_trouble_ends() -> Iterator[None]:
    """A file of this machine that cannot be used is no service that may come: it ends the start, as a wrong setting does."""
    try:
        yield
    except LakeError as exc:
        if is_of_this_machine(exc):
            raise SettingsError(str(exc)) from exc
        raise
