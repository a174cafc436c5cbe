"""Which faults can be played here, and which cannot and why."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from k2stream.chaos.crew import Crew
from k2stream.chaos.detours import Detours
from k2stream.chaos.fault import Fault
from k2stream.chaos.ground import Ground
from k2stream.chaos.machine_faults import clock_faults, disk_faults, find_faketime, give_clock, small_disk, why_no_small_disk
from k2stream.chaos.redis_database import RedisDatabase
from k2stream.chaos.servers import Server, addresses
from k2stream.chaos.service_faults import redis_faults, registry_faults, rest_faults, s3_faults, server_faults, sql_faults
from k2stream.chaos.worker_faults import worker_faults
from k2stream.errors import K2Error, SettingsError

E_NOT_OURS = "`k2 dev` did not start it here; if it is yours to break, say --i-own-this {}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The list of a run."""

    faults: list[Fault] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """What is not played, and why."""

    def only(self, names: Sequence[str]) -> "Plan":
        """Those named; raises SettingsError for a name that is not on the list."""
        if not names:
            return self
        known = {fault.name: fault for fault in self.faults}
        if unknown := [name for name in names if name not in known]:
            raise SettingsError(f"--only {unknown[0]}: cannot be played here. What can be: {', '.join(known)}.")
        others = len(known) - len(set(names))
        return Plan([known[name] for name in dict.fromkeys(names)], {**self.left_out, **({f"{others} others": "left out by --only"} if others else {})})


def plan(
    ground: Ground,
    crew: Crew,
    detours: Detours,
    servers: Mapping[str, Server],
    database: RedisDatabase | None,
    stack: ExitStack,
    *,
    storm_beats: int,
    away_seconds: float,
) -> Plan:
    """Everything that this configuration and this machine allow. A small disk, where there is one, goes with `stack`."""
    session_seconds = ground.settings.session_timeout_ms / 1000
    this = Plan(worker_faults(workers=len(crew.members), session_seconds=session_seconds, storm_beats=storm_beats))
    if len(crew.members) == 1:
        why = "" if ground.settings.broker else ", and the embedded log has one reader"
        this.left_out["zombie, rebalance storm"] = f"they need several workers{why}"
    _services(this, detours, database)
    _servers(this, servers, addresses(ground.settings), away_seconds=away_seconds)
    _machine(this, ground, crew, stack)
    return this


def _services(this: Plan, detours: Detours, database: RedisDatabase | None) -> None:
    if detours.redis is not None and database is not None:
        this.faults.extend(redis_faults(detours.redis, database))
    if detours.sql is not None:
        this.faults.extend(sql_faults(detours.sql))
    if detours.rest is not None:
        this.faults.extend(rest_faults(detours.rest))
    if detours.s3 is not None:
        this.faults.extend(s3_faults(detours.s3))
    if detours.registry is not None:
        this.faults.extend(registry_faults(detours.registry))
    this.left_out.update({f"{name} faults": why for name, why in detours.lacking.items()})


def _servers(this: Plan, servers: Mapping[str, Server], named: Mapping[str, str], *, away_seconds: float) -> None:
    this.faults.extend(server_faults(servers, away_seconds=away_seconds))
    this.left_out.update({f"{name} restarts": E_NOT_OURS.format(name) for name in named if name not in servers and name != "registry"})
    if "kafka" not in named:
        this.left_out["kafka restarts"] = "the log is the embedded one, which is no server"


def _machine(this: Plan, ground: Ground, crew: Crew, stack: ExitStack) -> None:
    library = find_faketime()
    if library is not None:
        member = crew.members[0]
        this.faults.extend(clock_faults(give_clock(member, library), member.name))
    else:
        this.left_out["clock jumps"] = "libfaketime is not installed (Debian: apt-get install libfaketime)"
    why = why_no_small_disk(ground.settings)
    folder = ground.home / "warehouse"
    if not why:
        try:
            stack.enter_context(small_disk(folder))
        except K2Error as exc:
            why = str(exc)
        else:
            this.faults.extend(disk_faults(folder))
    if why:
        this.left_out["disk full"] = why
