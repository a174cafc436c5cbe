"""What is wrong right now, in sentences; empty means well."""

from collections.abc import Mapping


class Health:
    """Named causes; `/healthz` is red while one of them stands."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def red(self, name: str, sentence: str) -> None:
        self._causes[name] = sentence

    def green(self, name: str) -> None:
        self._causes.pop(name, None)

    def is_green(self) -> bool:
        return not self._causes

    def causes(self) -> Mapping[str, str]:
        return dict(self._causes)
