"""What of a file is loaded: kept under K2_HOME, by the file's content and the topic, so that a moved file is the same file."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import xxhash

from k2stream.errors import LoadError
from k2stream.load.chunk import Place
from k2stream.progress_file import ProgressFile

FORMAT = 1
READ_BYTES = 1 << 20
FIRST = Place()


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything before `place` is published, or its letter is written, for certain."""

    path: str
    """Where the file lay when it was loaded last."""
    topic: str
    broker: str
    """Which log; empty: the embedded one."""
    mapping: str
    """Digest of the mapping."""
    place: Place = FIRST
    published: int = 0
    rejected: int = 0
    is_done: bool = False


def fingerprint_of(path: Path) -> str:
    """32 hexadecimal digits of the file's bytes, which it reads all; raises LoadError."""
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    except OSError as exc:
        raise LoadError(f"{path} cannot be read ({exc.strerror}). Name a file that exists and may be read.") from exc
    return digest.hexdigest()


class ProgressOf:
    """The progress of one file's content into one topic."""

    def __init__(self, folder: Path, fingerprint: str, topic: str) -> None:
        self._folder = folder
        self.file = ProgressFile(folder / f"{fingerprint}--{topic}.json", error=LoadError, does="loads this file")

    def load(self) -> Progress | None:
        """As saved last; None if this content was never loaded into the topic."""
        return _read(self.file)

    def save(self, progress: Progress) -> None:
        """On disk before it returns."""
        self.file.save({"format": FORMAT, **asdict(progress)})

    def of_other_content(self, path: str, topic: str) -> Progress | None:
        """What was loaded from the same place into the same topic when the file was another."""
        for other in sorted(self._folder.glob(f"*--{topic}.json")):
            if other != self.file.path:
                found = _read(ProgressFile(other, error=LoadError, does=""))
                if found is not None and found.path == path:
                    return found
        return None


def renamed(progress: Progress, path: str) -> Progress:
    """The same, of a file that lies elsewhere by now."""
    return replace(progress, path=path)


def _read(file: ProgressFile) -> Progress | None:
    try:
        fields = file.load()
        if fields is None:
            return None
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        return Progress(place=Place(**fields.pop("place")), **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise LoadError(f"{file.path} is no progress of a load ({exc!r}). Move it away; the file is loaded from its first row then, with equal ids.") from exc
