"""One name for one pair on all venues, from config/symbols.yaml: read, checked, and asked both ways."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strictyaml
from pydantic import BaseModel, ConfigDict, ValidationError

from k2stream.checkout import find_root
from k2stream.errors import K2Error, QueryError, SettingsError
from k2stream.settings import Settings

PAIR = re.compile(r"[A-Z0-9]+/[A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """What is traded: so much of `base` for so much of `quote`."""

    base: str
    quote: str

    def __str__(self) -> str:
        return f"{self.base}/{self.quote}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A pair as one venue names it, both as its rows write them."""

    pair: Pair
    exchange: str
    symbol: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pairs: dict[str, dict[str, str]]


def listings(settings: Settings) -> list[Listed]:
    """All pairs of all venues, in the file's order; raises SettingsError naming file and key."""
    path = Path(settings.symbols_file) if settings.symbols_file else find_root() / "config" / "symbols.yaml"
    found: list[Listed] = []
    first: dict[tuple[str, str], str] = {}
    for name, venues in _load(path).items():
        if not PAIR.fullmatch(name):
            raise SettingsError(f"{path}: pairs.{name}: expected BASE/QUOTE in capital letters, as BTC/USD.")
        for venue, symbol in venues.items():
            if (other := first.setdefault((venue, symbol), name)) != name:
                raise SettingsError(f"{path}: pairs.{name}.{venue}: {symbol} is {other} already; a symbol has one name.")
            found.append(Listed(Pair(*name.split("/")), venue.upper(), symbol))
    return found


def listings_or_none(settings: Settings) -> list[Listed]:
    """As `listings`; none outside a checkout where no file is named: a feed reads symbols without it."""
    if not settings.symbols_file:
        try:
            find_root()
        except K2Error:
            return []
    return listings(settings)


def pairs_of(found: Sequence[Listed], venue: str) -> Mapping[str, Pair]:
    """The pairs of one venue by its symbols."""
    return {listed.symbol: listed.pair for listed in found if listed.exchange == venue.upper()}


def listed_as(found: Sequence[Listed], names: Sequence[str]) -> list[Listed]:
    """Where these pairs are traded, and under which symbols; raises QueryError for a name that the file does not have."""
    known = {str(listed.pair) for listed in found}
    unknown = [name for name in names if name.upper() not in known]
    if unknown:
        raise QueryError(f"{', '.join(unknown)}: no pair of config/symbols.yaml. There are {', '.join(sorted(known))}; add it there, or ask by --symbol.")
    wanted = {name.upper() for name in names}
    return [listed for listed in found if str(listed.pair) in wanted]


def _load(path: Path) -> dict[str, dict[str, str]]:
    try:
        data: Any = strictyaml.load(path.read_text(encoding="utf-8"), label=str(path)).data
        return _File.model_validate(data).pairs
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read ({exc.strerror}). Name the file by K2_SYMBOLS_FILE, or run k2 in the checkout.") from exc
    except (strictyaml.YAMLError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} is not YAML as expected: {' '.join(str(exc).split())}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        raise SettingsError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}, found {first['input']!r}.") from exc
