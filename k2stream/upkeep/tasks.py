"""What keeps tables healthy, task by task, over all tables of the namespace; the command line and the agent both come here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any

import structlog

from k2stream.clock import Clock, Deadline, SystemClock
from k2stream.errors import LakeError, QueryError, SettingsError
from k2stream.lake.catalog import open_catalog
from k2stream.lake.commit import Committer
from k2stream.lake.compaction import Compaction, Limits
from k2stream.lake.expiry import Expiry
from k2stream.lake.head import head_of, head_or_start
from k2stream.lake.listing import tables_of
from k2stream.lake.orphans import remove_orphans
from k2stream.lake.pins import Pin, pin, pins_of, unpin
from k2stream.lake.reader import TableReader
from k2stream.lake.retention import Retention, why_whole
from k2stream.lake.table import ORPHAN_SHARE, no_step
from k2stream.lake.taken import TAKERS, Taken
from k2stream.lake.turn import Turn, no_turn
from k2stream.query.engine import Engine
from k2stream.settings import Settings
from k2stream.upkeep.sameness import is_same

log = structlog.get_logger(__name__)

DAY_US = 86_400_000_000
WITHOUT_VECTOR = frozenset({"replays", *TAKERS.values()})
"""Tables whose rows no window brings: history without a vector carries nothing there, and is nothing to adopt."""


@dataclass(slots=True)
class Report:
    """What one task did to one table; with `is_dry` what it would do."""

    task: str
    table: str
    is_dry: bool
    says: list[str] = field(default_factory=list)
    """For people, one sentence each."""
    counts: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    """Why it did not come to its end; what it did until then holds."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        for sentence in self.says or ["nothing to do"]:
            yield f"{self.task} {self.table}: {sentence}"
        if self.trouble:
            yield f"{self.task} {self.table}: NOT finished. {self.trouble}"


class Upkeep:
    """Opened from settings; every call blocks, and may run beside any number of workers."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, on_step: Callable[[str], None] = no_step, turn: Turn = no_turn) -> None:
        self._settings, self._clock, self._on_step, self._turn = settings, clock or SystemClock(), on_step, turn
        self.catalog = open_catalog(settings)
        self.spill = settings.home_path("upkeep")

    def tables(self, only: str | None = None) -> list[str]:
        """Names of the tables there are; raises LakeError if `only` is none of them."""
        names = tables_of(self.catalog, self._settings)
        if only is not None and only not in names:
            there = ", ".join(names) or "none yet, a worker makes them when it starts"
            raise LakeError(f"{self._settings.namespace} has no table {only}. Name one of these: {there}.")
        return [only] if only is not None else names

    def compact(self, table: str, *, is_whole: bool, is_dry: bool = False) -> Report:
        """Merge small files; `is_whole` also those of days that still grow."""
        report = Report("compact", table, is_dry, counts={"files_before": 0, "files_after": 0, "rows": 0, "bytes": 0})
        self.spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(Engine.of(self._settings, spill=self.spill)) as engine, _told(report):
            task = Compaction(
                self._committer(table, "compact.3"),
                self._limits(),
                spill=self.spill,
                is_same=partial(is_same, engine),
                clock=self._clock,
                on_step=self._on_step,
                is_synced=self._settings.fsync,
            )
            for job in task.plan(is_whole=is_whole):
                done = None if is_dry else task.run(job)
                if done is None or done.has_landed:
                    outputs = job.outputs if done is None else len(done.outputs)
                    size_bytes = job.size_bytes if done is None else done.output_bytes
                    _count(report, files_before=len(job.files), files_after=outputs, rows=job.rows, bytes=size_bytes)
                    report.says.append(f"{len(job.files):,} files of {_partition(job.partition)} into {outputs}, {job.rows:,} rows, {_mb(size_bytes)}")
        return report

    def expire(self, table: str, *, is_dry: bool = False) -> Report:
        """Let go of snapshots beyond count and age, and of pins whose time is over."""
        report, now_us = Report("expire", table, is_dry, counts={"snapshots": 0, "pins": 0}), self._clock.now_us()
        with _told(report):
            committer = self._committer(table, "expire")
            over = [p.name for p in pins_of(committer.load()) if p.is_over(now_us // 1000)]
            if not is_dry:
                unpin(committer, over, self._deadline())
            before_ms = now_us // 1000 - self._settings.snapshot_age_ms
            expiry = Expiry(
                committer,
                kept=self._settings.snapshots_kept,
                is_taken=Taken(self.catalog, self._settings),
                referenced=lambda files: files,  # those that nothing names are found as orphans, when no reader has them open
                before_ms=before_ms,
            )
            gone = len(expiry.going(committer.load())) if is_dry else expiry.run(self._deadline())
            _count(report, snapshots=gone, pins=len(over))
            if gone or over:
                report.says.append(f"{gone} snapshots, {len(over)} pins are over")
        return report

    def orphans(self, table: str, *, is_dry: bool = False) -> Report:
        """Delete files that nothing names any more."""
        report, settings = Report("orphans", table, is_dry, counts={"files": 0, "bytes": 0, "waiting": 0, "unknown": 0}), self._settings
        with _told(report):
            others = [self._committer(name, "orphans").load() for name in self.tables() if name != table]
            found = remove_orphans(
                self._committer(table, "orphans").load(),
                others,
                now_us=self._clock.now_us(),
                age_us=settings.orphan_age_ms * 1000,
                read_us=settings.unnamed_ms * 1000,
                is_dry=is_dry,
            )
            _count(report, files=len(found.gone), bytes=found.gone_bytes, waiting=len(found.waiting), unknown=len(found.unknown))
            if found.gone:
                report.says.append(f"{len(found.gone):,} files that nothing names, {_mb(found.gone_bytes)}")
            if found.waiting:
                report.says.append(f"{len(found.waiting):,} more wait for K2_ORPHAN_AGE_MS and K2_UNNAMED_MS")
            report.says += [f"left alone, not ours: {f.location}" for f in found.unknown[:3]]
        return report

    def retain(self, table: str, days: int, *, is_dry: bool = False) -> Report:
        """Take out whole days older than `days`; raises SettingsError if dedup still asks for them."""
        report = Report("retention", table, is_dry, counts={"days": 0, "rows": 0, "files": 0, "bytes": 0})
        least = -(-(self._settings.dedup_horizon_ms + self._settings.dedup_tolerance_ms) // 86_400_000) + 1
        if days < least and table not in WITHOUT_VECTOR:
            rule = f"expected {least} or more, or duplicates of what is gone would be new (K2_DEDUP_HORIZON_MS)"
            raise SettingsError(f"Retention of {table} is {days} days: {rule}. Mend K2_KEEP_DAYS.")
        with _told(report):
            reader = TableReader(self.catalog, self._settings, table)
            task = Retention(
                self._committer(table, "retire.2"),
                lambda name, tp: found[0] if (found := reader.tracker_blob(name, tp)) else None,
                on_step=self._on_step,
            )
            for day in task.plan(self._clock.now_us() // DAY_US - days):
                if day.needed_by is not None:
                    tp = day.needed_by
                    report.says.append(f"{_day(day.day)} stays: a restart of {tp.topic}/{tp.partition} reads its rows, until the next tracker file")
                elif is_dry or task.retire(day, self._deadline()):
                    _count(report, days=1, rows=day.rows, files=len(day.files), bytes=day.size_bytes)
                    report.says.append(f"{_day(day.day)}: {day.rows:,} rows in {len(day.files):,} files, {_mb(day.size_bytes)}")
        return report

    def keep(self, table: str, *, is_dry: bool = False) -> Report:
        """What retention says of a table that it was not asked to cut."""
        report = Report("retention", table, is_dry)
        with _told(report):
            report.says.append(f"kept for ever: {why_whole(self.committer(table).load()) or 'K2_KEEP_DAYS does not name it'}")
        return report

    def pin(self, table: str, snapshot_id: int, *, seconds: float) -> Pin:
        """Keep a snapshot, as a receipt names it, for so long. Raises LakeError."""
        until_ms = self._clock.now_us() // 1000 + int(seconds * 1000)
        return pin(self._committer(table, "pin"), snapshot_id, until_ms=until_ms, deadline=self._deadline())

    def unpin(self, table: str, name: str) -> None:
        """Let go of a pin before its time. Raises LakeError."""
        unpin(self._committer(table, "pin"), [name], self._deadline())

    def committer(self, table: str) -> Committer:
        """For who looks at a table."""
        return self._committer(table, "look")

    def close(self) -> None:
        """Give the catalog's connections back."""
        self.catalog.close()

    def _committer(self, table: str, step: str) -> Committer:
        read_head = head_or_start if table in WITHOUT_VECTOR else head_of
        committer = Committer(self.catalog, (self._settings.namespace, table), worker_id="upkeep", on_step=self._on_step, step=step, read_head=read_head)
        committer.turn_of = self._turn
        return committer

    def _deadline(self) -> Deadline:
        return Deadline.after(self._settings.commit_timeout_ms / 1000)

    def _limits(self) -> Limits:
        s = self._settings
        return Limits(s.compact_target_bytes, s.compact_min_files, s.upkeep_memory_bytes, s.orphan_age_ms * 1000 // ORPHAN_SHARE, s.commit_timeout_ms / 1000)


def run_all(upkeep: Upkeep, settings: Settings, *, is_dry: bool = False) -> list[Report]:
    """Every task on every table, as the agent does it; one that fails, or that cannot be done, does not keep the others from being done."""
    tables = upkeep.tables()
    reports = list(_retained(upkeep, settings, tables, is_dry))
    for table in tables:
        reports += [
            upkeep.compact(table, is_whole=False, is_dry=is_dry),
            upkeep.expire(table, is_dry=is_dry),
            upkeep.orphans(table, is_dry=is_dry),
        ]
    return reports


def _retained(upkeep: Upkeep, settings: Settings, tables: Sequence[str], is_dry: bool) -> Iterator[Report]:
    """Retention as K2_KEEP_DAYS asks for it; what it says in vain is told, or rows would stay that nobody may keep."""
    keep, setting = dict[str, int](), Report("retention", "K2_KEEP_DAYS", is_dry)
    with _told(setting):
        keep = keep_days_of(settings)
        if unknown := sorted(keep.keys() - set(tables)):
            raise SettingsError(f"K2_KEEP_DAYS names {', '.join(unknown)}: expected names of tables, which are {', '.join(tables) or 'none yet'}. Mend it.")
    if setting.trouble:
        yield setting
    for table in [table for table in tables if table in keep]:
        report = Report("retention", table, is_dry)
        with _told(report):
            report = upkeep.retain(table, keep[table], is_dry=is_dry)
        yield report


def keep_days_of(settings: Settings) -> dict[str, int]:
    """K2_KEEP_DAYS by table; raises SettingsError if it cannot be meant."""
    parts = [part.strip() for part in settings.keep_days.split(",") if part.strip()]
    pairs = [part.partition("=")[::2] for part in parts]
    if bad := [part for part, (name, days) in zip(parts, pairs, strict=True) if not name or not days.isdigit() or not int(days)]:
        raise SettingsError(f"K2_KEEP_DAYS: {bad[0]!r} is not understood; expected a table and days, as in trades=365,quotes=30.")
    return {name: int(days) for name, days in pairs}


@contextmanager
def _told(report: Report) -> Iterator[None]:
    """What goes wrong is the report's: other tables are kept healthy all the same."""
    try:
        yield
    except (LakeError, QueryError, SettingsError) as exc:
        report.trouble = str(exc)
        log.warning("upkeep.postponed", task=report.task, table=report.table, cause=str(exc))


def _count(report: Report, **more: int) -> None:
    for name, count in more.items():
        report.counts[name] += count


def _partition(key: tuple[object, ...]) -> str:
    return " ".join([_day(key[0]), *map(str, key[1:])]) if key and isinstance(key[0], int) else "the table"


def _day(day: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days=day))


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MB"
