"""Sets of whole numbers as spans (first, last), both included, in order and apart from each other; pure."""

from collections.abc import Iterable, Iterator, Sequence

Span = tuple[int, int]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same numbers; spans that overlap or touch become one."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def without(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """The numbers of `spans` that are in none of `others`."""
    return list(_without(merged(spans), merged(others)))


def _without(spans: Sequence[Span], others: Sequence[Span]) -> Iterator[Span]:
    at = 0
    for first, last in spans:
        while at < len(others) and others[at][1] < first:
            at += 1
        begin, look = first, at
        while look < len(others) and others[look][0] <= last:
            if others[look][0] > begin:
                yield begin, others[look][0] - 1
            begin = others[look][1] + 1
            look += 1
        if begin <= last:
            yield begin, last


def within(spans: Iterable[Span], first: int, last: int) -> list[Span]:
    """The numbers of `spans` from `first` to `last`."""
    return [(max(a, first), min(b, last)) for a, b in merged(spans) if a <= last and b >= first]


def count(spans: Iterable[Span]) -> int:
    """How many numbers they hold."""
    return sum(last - first + 1 for first, last in merged(spans))


def of_numbers(numbers: Iterable[int]) -> list[Span]:
    """Single numbers as spans."""
    return merged((number, number) for number in numbers)


def near(spans: Iterable[Span], distance: int) -> Iterator[Span]:
    """Spans that cover these and reach over holes of fewer than `distance` numbers."""
    whole: Span | None = None
    for first, last in merged(spans):
        if whole is not None and first - whole[1] <= distance:
            whole = (whole[0], last)
            continue
        if whole is not None:
            yield whole
        whole = (first, last)
    if whole is not None:
        yield whole
