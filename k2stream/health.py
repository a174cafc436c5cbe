"""What is wrong right now, in sentences; empty means well."""

from collections.abc import Mapping

MAIN = "trades"
"""The data type that every worker reads: its causes stand under their plain names."""


class Health:
    """Named causes; `/healthz` is red while one of them stands."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def of(self, data_type: str) -> "Health":
        """The same health for one data type's capture; where a worker has several, none hides what another says under the same name."""
        return self if data_type == MAIN else _Part(self, data_type)

    def red(self, name: str, sentence: str) -> None:
        self._causes[name] = sentence

    def green(self, name: str) -> None:
        self._causes.pop(name, None)

    def is_green(self) -> bool:
        return not self._causes

    def causes(self) -> Mapping[str, str]:
        return dict(self._causes)


class _Part(Health):
    """Causes of one data type, named after it."""

    def __init__(self, whole: Health, data_type: str) -> None:
        self._whole, self._data_type = whole, data_type

    def red(self, name: str, sentence: str) -> None:
        self._whole.red(f"{name} of {self._data_type}", sentence)

    def green(self, name: str) -> None:
        self._whole.green(f"{name} of {self._data_type}")

    def is_green(self) -> bool:
        return self._whole.is_green()

    def causes(self) -> Mapping[str, str]:
        return self._whole.causes()
