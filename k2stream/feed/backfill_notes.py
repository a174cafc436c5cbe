"""What back-fill has published and what a venue said it does not have, by symbol: a file under K2_HOME, so that nothing is asked twice."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from k2stream.errors import FeedError
from k2stream.number_spans import Span, merged

FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(slots=True)
class _Symbol:
    published: list[Span] = field(default_factory=list)
    absent: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class BackfillNotes:
    """Of one venue; one writer. Every change is on disk when `add` returns."""

    path: Path
    _symbols: dict[str, _Symbol] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """As an earlier run left them; empty if there are none. Raises FeedError if the file is damaged."""
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            symbols = {name: _Symbol(*([(int(a), int(b)) for a, b in entry[kind]] for kind in ("published", "absent"))) for name, entry in said.items()}
        except FileNotFoundError:
            return cls(path)
        except OSError as exc:
            raise FeedError(f"{path} cannot be read ({exc.strerror}). Mend the folder.") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise FeedError(f"{path} is damaged: {exc!r}. Delete it: then everything that is missing is asked for again.") from exc
        return cls(path, symbols)

    def accounted(self, symbol: str) -> list[Span]:
        """Numbers that need not be asked for."""
        found = self._symbols.get(symbol, _Symbol())
        return merged([*found.published, *found.absent])

    def add(self, symbol: str, *, published: Sequence[Span], absent: Sequence[Span]) -> None:
        """Note numbers; raises FeedError if they cannot be written down."""
        if not published and not absent:
            return
        known = self._symbols.setdefault(symbol, _Symbol())
        known.published, known.absent = merged([*known.published, *published]), merged([*known.absent, *absent])
        try:
            self._write()
        except OSError as exc:
            raise FeedError(f"{self.path} cannot be written ({exc.strerror}). Mend the folder; what was published is in the log.") from exc

    def forget(self) -> None:
        """Start anew; the file goes with the next `add`."""
        self._symbols.clear()

    def _write(self) -> None:
        self.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        aside = self.path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w", encoding="utf-8") as file:
            json.dump({name: {"published": s.published, "absent": s.absent} for name, s in self._symbols.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
