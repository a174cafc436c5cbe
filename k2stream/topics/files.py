"""config/topics.yaml and config/instruments.yaml, read and checked: what is wrong is named with its file and key."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import strictyaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k2stream.checkout import find_root
from k2stream.errors import K2Error, SettingsError
from k2stream.settings import Settings
from k2stream.topics import ASSET_CLASSES, KEPT_30_DAYS, KINDS, LETTER_TYPE, LETTERS, TopicName, venue_topic
from k2stream.topics.plan import Declared, Terms

Model = TypeVar("Model", bound=BaseModel)
KEYS = {**{data_type: kind.key for data_type, kind in KINDS.items()}, LETTER_TYPE: "origin"}


class _DataType(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str
    config: dict[str, str] = {}


class _Topic(BaseModel):
    model_config = ConfigDict(extra="forbid")

    partitions: Annotated[int, Field(gt=0)] | None = None
    config: dict[str, str] = {}


class _Topics(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data_types: dict[str, _DataType]
    topics: dict[str, _Topic]


class _Exchange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    asset_class: str
    symbols: list[str]


class _Instruments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    exchanges: dict[str, _Exchange]


def declared_topics(settings: Settings) -> list[Declared]:
    """The topics of K2_TOPICS_FILE, in its order; raises SettingsError naming file and key."""
    return _read(settings)[1]


def terms_of(settings: Settings, name: str) -> Terms:
    """How a writer is to make a market topic, declared or not; raises SettingsError naming file and key.

    A redundant topic is declared by its venue's, and one that is not declared has what its data type has. K2_PARTITIONS is its number
    then, and where it is set by hand that of every topic. Outside a checkout where no file is named nothing is declared.
    """
    kind = KINDS[TopicName.parse(name).data_type]
    shared, topics = _read(settings) if _has_topics(settings) else ({}, [])
    by_name = {topic.name: topic for topic in topics}
    found = by_name.get(name) or by_name.get(venue_topic(name))
    if found is None:
        return Terms(Declared(name, kind.partitions or settings.partitions, shared.get(kind.data_type, kind.config)), None)
    declared = replace(found, name=name)
    is_by_hand = "partitions" in settings.model_fields_set and kind.partitions is None
    return Terms(replace(declared, partitions=settings.partitions) if is_by_hand else declared, declared)


def letter_terms(settings: Settings, names: Iterable[str]) -> list[Declared]:
    """How dead letter topics are to be made, declared or not; raises SettingsError naming file and key.

    K2_PARTITIONS is the number of one that declares none, and where it is set by hand that of every topic; what is not declared is as KEPT_30_DAYS.
    """
    shared, topics = _read(settings) if _has_topics(settings) else ({}, [])
    by_name, is_by_hand = {topic.name: topic for topic in topics}, "partitions" in settings.model_fields_set
    found = [by_name.get(name) or Declared(name, settings.partitions, shared.get(LETTER_TYPE, {})) for name in names]
    return [Declared(each.name, settings.partitions if is_by_hand else each.partitions, {**KEPT_30_DAYS, **each.config}) for each in found]


def declared_topic(settings: Settings, name: str) -> Declared:
    """One topic of K2_TOPICS_FILE; raises SettingsError if it is not declared there."""
    found = next((topic for topic in declared_topics(settings) if topic.name == name), None)
    if found is None:
        raise SettingsError(f"{_path(settings.topics_file, 'topics.yaml')} does not declare {name}. Declare it there, with its partitions.")
    return found


def symbols_by_exchange(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The symbols of K2_INSTRUMENTS_FILE, in its order; raises SettingsError naming file and key."""
    path = _path(settings.instruments_file, "instruments.yaml")
    exchanges = _load(path, _Instruments).exchanges
    for name, exchange in exchanges.items():
        where = f"exchanges.{name}"
        _require(exchange.asset_class in ASSET_CLASSES, path, f"{where}.asset_class", f"expected {' or '.join(ASSET_CLASSES)}, found {exchange.asset_class}")
        twice = sorted({s for s in exchange.symbols if exchange.symbols.count(s) > 1})
        _require(not twice, path, f"{where}.symbols", f"{', '.join(twice)} stands there twice")
    return {name: tuple(exchange.symbols) for name, exchange in exchanges.items()}


def symbols_of(settings: Settings, exchange: str) -> tuple[str, ...]:
    """One exchange's symbols; raises SettingsError if the file has none of it."""
    symbols = symbols_by_exchange(settings).get(exchange, ())
    _require(bool(symbols), _path(settings.instruments_file, "instruments.yaml"), f"exchanges.{exchange}.symbols", "expected at least one, found none")
    return symbols


def _read(settings: Settings) -> tuple[Mapping[str, Mapping[str, str]], list[Declared]]:
    """Settings by data type, and topics in the file's order."""
    path = _path(settings.topics_file, "topics.yaml")
    file = _load(path, _Topics, optional="topics")
    for data_type, kind in file.data_types.items():
        _require(KEYS.get(data_type) == kind.key, path, f"data_types.{data_type}.key", f"expected {_choices(KEYS, data_type)}, found {kind.key}")
    topics = [_declared(path, file, name, topic, settings.partitions) for name, topic in file.topics.items()]
    _require_equal_numbers(path, topics)
    return {data_type: kind.config for data_type, kind in file.data_types.items()}, topics


def _has_topics(settings: Settings) -> bool:
    if settings.topics_file:
        return True
    try:
        return _path("", "topics.yaml").exists()
    except K2Error:
        return False


def _require_equal_numbers(path: Path, topics: Sequence[Declared]) -> None:
    """Of topics of one venue: workers refuse them otherwise."""
    numbers: dict[str, int] = {}
    for topic in topics:
        number = numbers.setdefault(venue_topic(topic.name), topic.partitions)
        says = f"expected {number} as other topics of its venue have, or a trade that both report could become two rows; found {topic.partitions}"
        _require(topic.partitions == number, path, f"topics.{topic.name}.partitions", says)


def _path(named: str, default: str) -> Path:
    return Path(named) if named else find_root() / "config" / default


def _load(path: Path, model: type[Model], *, optional: str = "") -> Model:
    try:
        data: Any = strictyaml.load(path.read_text(encoding="utf-8"), label=str(path)).data
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read ({exc.strerror}). Name the file by --file or by its setting, or run k2 in the checkout.") from exc
    except (strictyaml.YAMLError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path} is not YAML as expected: {' '.join(str(exc).split())}") from exc
    if isinstance(data, dict) and isinstance(data.get(optional), dict):
        data[optional] = {name: value or {} for name, value in data[optional].items()}  # a name alone stands for a topic with nothing of its own
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SettingsError(f"{path}: {where}: {first['msg']}, found {first['input']!r}.") from exc


def _declared(path: Path, file: _Topics, name: str, topic: _Topic, partitions: int) -> Declared:
    data_type = _data_type_of(path, name)
    where = f"topics.{name}"
    _require(data_type in file.data_types, path, where, f"its data type {data_type} is not under data_types")
    config = file.data_types[data_type].config | topic.config
    fixed = KINDS[data_type].partitions if data_type in KINDS else None
    _require(fixed is None or topic.partitions == fixed, path, f"{where}.partitions", f"expected {fixed} for {data_type}, found {topic.partitions}")
    return Declared(name, topic.partitions or partitions, config)


def _data_type_of(path: Path, name: str) -> str:
    parts = name.split(".")
    if parts[0] == LETTERS:
        _require(len(parts) == 3 and all(parts), path, f"topics.{name}", "expected dlq.ASSET_CLASS.DATA_TYPE")
        return LETTER_TYPE
    try:
        data_type = TopicName.parse(name).data_type
    except SettingsError as exc:
        raise SettingsError(f"{path}: topics.{name}: expected market.ASSET_CLASS.DATA_TYPE.EXCHANGE or dlq.ASSET_CLASS.DATA_TYPE.") from exc
    _require(data_type in KINDS, path, f"topics.{name}", f"expected one of the data types {', '.join(KINDS)}, found {data_type}")
    return data_type


def _choices(keys: Mapping[str, str], data_type: str) -> str:
    return keys[data_type] if data_type in keys else f"one of the data types {', '.join(keys)}"


def _require(holds: bool, path: Path, where: str, says: str) -> None:
    if not holds:
        raise SettingsError(f"{path}: {where}: {says}.")
