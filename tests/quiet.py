"""How much of a virtual machine's time its host gave to others: a figure taken meanwhile says more of them than of us."""

from dataclasses import dataclass
from pathlib import Path

QUIET = 0.05
"""Share of all cores' time; the machine is called quiet below it."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Of all cores since the machine started, in ticks."""

    whole: int
    stolen: int

    @classmethod
    def now(cls) -> "CpuTime":
        """As proc(5) has it; where there is no /proc nothing is ever stolen."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return cls(0, 0)
        ticks = [int(word) for word in stat.read_text("ascii").partition("\n")[0].split()[1:9]]
        return cls(sum(ticks), ticks[7])

    def stolen_share_since(self, earlier: "CpuTime") -> float:
        """0 to 1."""
        whole = self.whole - earlier.whole
        return (self.stolen - earlier.stolen) / whole if whole else 0.0

    def own_seconds(self, seconds: float) -> float:
        """What is left of `seconds` that began here, without what was stolen since."""
        return seconds * (1 - CpuTime.now().stolen_share_since(self))
