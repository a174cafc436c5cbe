"""How far a migration is: which offsets it copies, and what the target held when that was last certain; one file, replaced whole."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from k2stream.errors import MigrationError
from k2stream.progress_file import ProgressFile


@dataclass(frozen=True, slots=True)
class Course:
    """One round: the source as it was when the round began. The next round takes what came since."""

    source: str
    target: str
    spans: tuple[tuple[int, int], ...]
    """First offset and the one after the last, for each source partition."""
    started_at: tuple[int, ...]
    """Where each target partition ended when the round began."""
    partition: int
    """Source partition that is being copied; past the last once all are."""
    offset: int
    """Everything of it below is in the target for certain."""
    target_ends: tuple[int, ...]
    """Where each target partition ended then."""
    is_verified: bool = False
    producer_id: int = -1
    """Under which the round's log batches are numbered, from 0 in each target partition; -1: none was asked for yet."""

    @property
    def is_copied(self) -> bool:
        return self.partition >= len(self.spans)

    @property
    def records_at_most(self) -> int:
        """Offsets to copy; holes among them bring no record."""
        return sum(end - begin for begin, end in self.spans)


class CourseFile:
    """The course of one migration, for one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ProgressFile(path, error=MigrationError, does="migrates")

    def held(self) -> AbstractContextManager[None]:
        """Nobody else migrates the same meanwhile, or MigrationError."""
        return self._file.held()

    def load(self) -> Course | None:
        """The course as last saved; None if there is none."""
        try:
            fields = self._file.load()
            if fields is None:
                return None
            spans = tuple((int(begin), int(end)) for begin, end in fields.pop("spans"))
            return Course(spans=spans, started_at=tuple(fields.pop("started_at")), target_ends=tuple(fields.pop("target_ends")), **fields)
        except (ValueError, TypeError, KeyError) as exc:
            raise MigrationError(f"{self.path} is no course of a migration ({exc!r}). Move it away, delete the target topic and begin anew.") from exc

    def save(self, course: Course) -> None:
        """On disk before it returns: a crash leaves the course of before or this one."""
        self._file.save(asdict(course))
