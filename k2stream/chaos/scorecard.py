"""What a chaos run prints: what was broken, what was not and why, and what became of the tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Played:
    """One fault that was played, and what followed."""

    name: str
    count: int
    hit: str
    at_seconds: float
    """Since the run began."""
    fault_seconds: float
    recovered_seconds: float | None
    """From the fault's beginning until all that was published up to its end was committed; None: not in time."""
    is_good: bool
    """What the first look after it found."""


@dataclass(frozen=True, slots=True)
class Scorecard:
    """One run."""

    seed: int
    seconds: float
    workers: int
    partitions: int
    published: int
    rows: int
    lost: int
    extra: int
    duplicates_dropped: int
    dead_letters: int
    gap_events: int
    snapshots: int
    looks: int
    """How often the tables were checked, each time from one snapshot."""
    played: Sequence[Played]
    not_played: Mapping[str, str]
    """What was left out, and why."""
    deaths: Sequence[str]
    """Workers that ended although nobody broke them: a supervisor starts them again."""
    events: Mapping[str, int]
    """What workers logged, by kind."""
    problems: Sequence[str] = field(default=())

    @property
    def faults(self) -> int:
        return sum(p.count for p in self.played)

    @property
    def is_good(self) -> bool:
        return not self.problems and not self.lost and not self.extra and all(p.is_good and p.recovered_seconds is not None for p in self.played)

    def as_json(self) -> dict[str, object]:
        """What `k2 chaos --json` prints."""
        return {"good": self.is_good, "faults": self.faults, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        verdict = "exactly once" if self.is_good else "NOT exactly once"
        yield f"{verdict}: {self.faults} faults in {self.seconds:.0f} s, {self.rows:,} rows, {self.lost} lost, {self.extra} too many"
        yield f"  {self.workers} workers, {self.partitions} partitions, {self.published:,} records published, seed {self.seed}"
        yield f"  {self.duplicates_dropped:,} duplicates dropped, {self.dead_letters:,} dead letters, {self.gap_events:,} gap events"
        yield f"  {self.snapshots:,} snapshots; {self.looks} looks, each at one snapshot: audit, every key once, every row as published"
        yield from (f"problem: {sentence}" for sentence in self.problems)
        yield ""
        yield f"{'fault':24} {'times':>5} {'played':>6} {'good':>5} {'back, median s':>15} {'longest s':>10}"
        yield from (self._line(name) for name in dict.fromkeys(p.name for p in self.played))
        if self.not_played:
            yield ""
            yield "not run:"
            yield from (f"  {name:22} {why}" for name, why in self.not_played.items())
        if self.deaths:
            yield ""
            yield "workers that ended by themselves and were started again:"
            yield from (f"  {death}" for death in self.deaths)
        if self.events:
            yield ""
            yield "workers logged: " + ", ".join(f"{event} {count:,}" for event, count in self.events.items())

    def _line(self, name: str) -> str:
        played = [p for p in self.played if p.name == name]
        back = [p.recovered_seconds for p in played if p.recovered_seconds is not None]
        good = sum(p.is_good and p.recovered_seconds is not None for p in played)
        times = f"{median(back):15.1f} {max(back):10.1f}" if back else f"{'never':>15} {'':>10}"
        return f"{name:24} {sum(p.count for p in played):5} {len(played):6} {good:5} {times}"
