"""Which small files of a table are made into larger ones; pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Key = tuple[object, ...]
"""Values of a partition: with a day partition its first is the day."""

TIER_BYTES, TIER_FACTOR = 64 << 10, 8
"""Files of a tier are alike: below 64 KiB, below 512 KiB, 4 MiB... so that a row is rewritten once a tier, and not with every run."""
JOB_TARGETS = 4
"""A job makes so many files at most: what it wrote is done with before the next one begins."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live data file."""

    path: str
    partition: Key
    size_bytes: int
    rows: int
    first: int
    """Something that grows with the time of its rows; files of a job lie next to each other in it."""


@dataclass(frozen=True, slots=True)
class Job:
    """Files of one partition to be made into `outputs` files."""

    partition: Key
    files: tuple[Candidate, ...]
    outputs: int

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)


def plan_jobs(files: Iterable[Candidate], *, target_bytes: int, min_files: int, is_whole: bool) -> list[Job]:
    """Jobs that leave files of about `target_bytes`; those that hold the most files come first.

    `is_whole` merges all that is small; else, in a partition that may still grow, only files of one tier of which there are `min_files`.
    Done twice, the second time finds nothing.
    """
    partitions = defaultdict[Key, list[Candidate]](list)
    for file in files:
        if file.size_bytes < target_bytes // 2:
            partitions[file.partition].append(file)
    newest = max((day for key in partitions if key and isinstance(day := key[0], int)), default=None)
    jobs = list[Job]()
    for key, small in partitions.items():
        is_over = newest is not None and isinstance(key[0], int) and key[0] < newest
        chosen = small if is_whole or is_over else _of_full_tiers(small, min_files)
        jobs += _cut(key, chosen, target_bytes)
    return sorted(jobs, key=lambda job: -len(job.files))


def _of_full_tiers(small: Sequence[Candidate], min_files: int) -> Sequence[Candidate]:
    """Files up to the highest tier that is full, counting what the tiers below it will make as one more."""
    chosen: Sequence[Candidate] = ()
    below, tiers = list[Candidate](), defaultdict[int, list[Candidate]](list)
    for file in small:
        tiers[tier_of(file.size_bytes)].append(file)
    for tier in sorted(tiers):
        below += tiers[tier]
        if len(tiers[tier]) + bool(chosen) >= min_files:
            chosen = tuple(below)
    return chosen


def tier_of(size_bytes: int) -> int:
    """0 below 64 KiB, one more for each factor of 8."""
    tier, bound = 0, TIER_BYTES
    while size_bytes >= bound:
        tier, bound = tier + 1, bound * TIER_FACTOR
    return tier


def _cut(key: Key, chosen: Sequence[Candidate], target_bytes: int) -> list[Job]:
    jobs, held, held_bytes = list[Job](), list[Candidate](), 0
    for file in sorted(chosen, key=lambda f: (f.first, f.path)):
        held.append(file)
        held_bytes += file.size_bytes
        if held_bytes >= JOB_TARGETS * target_bytes:
            jobs.append(_job(key, held, target_bytes))
            held, held_bytes = [], 0
    if len(held) > 1:
        jobs.append(_job(key, held, target_bytes))
    return jobs


def _job(key: Key, files: Sequence[Candidate], target_bytes: int) -> Job:
    return Job(key, tuple(files), max(1, round(sum(f.size_bytes for f in files) / target_bytes)))
