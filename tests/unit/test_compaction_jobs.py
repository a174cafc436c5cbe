"""Which files compaction takes: enough to end with few, and not the same rows again and again."""

from k2stream.lake.jobs import Candidate, plan_jobs

MB = 1 << 20


def files(sizes: list[int], partition: tuple[object, ...] = (16_000, "ASX")) -> list[Candidate]:
    return [Candidate(f"{partition}/{i}", partition, size, size // 50, i) for i, size in enumerate(sizes)]


def chosen(found: list[Candidate], *, is_whole: bool = False) -> list[int]:
    return [len(job.files) for job in plan_jobs(found, target_bytes=256 * MB, min_files=8, is_whole=is_whole)]


def test_files_of_the_target_size_are_left_alone() -> None:
    """From half the target on a file is large."""
    assert chosen(files([128 * MB, 256 * MB, 400 * MB]), is_whole=True) == []


def test_one_small_file_alone_is_not_rewritten() -> None:
    """Doing it twice would else never end."""
    assert chosen(files([10_000]), is_whole=True) == []


def test_partitions_are_never_mixed() -> None:
    """A data file belongs to one day and one exchange."""
    assert chosen(files([10_000] * 3) + files([10_000] * 2, (16_000, "BINANCE")), is_whole=True) == [3, 2]


def test_a_growing_partition_waits_until_a_tier_is_full() -> None:
    """Seven small files are left, eight are merged, and what eight merges made is merged in turn."""
    assert chosen(files([10_000] * 7)) == []
    assert chosen(files([10_000] * 8)) == [8]
    assert chosen(files([10_000] * 8 + [5 * MB])) == [8]
    assert chosen(files([10_000] * 8 + [100_000] * 7)) == [15]


def test_a_day_that_is_over_is_finished() -> None:
    """Nothing more will fill its tiers."""
    assert chosen(files([10_000] * 3) + files([10_000] * 3, (16_001, "ASX"))) == [3]


def test_a_large_partition_is_cut_into_jobs_of_neighbours() -> None:
    """No job writes more than four files of the target size; their rows follow each other in time."""
    jobs = plan_jobs(files([100 * MB] * 30), target_bytes=256 * MB, min_files=8, is_whole=True)
    assert [job.outputs for job in jobs] == [4, 4, 3]
    assert [f.first for job in jobs for f in job.files] == list(range(30))


def test_rows_are_rewritten_a_handful_of_times_in_a_day_of_one_second_windows() -> None:
    """86,400 files of 10 kB with a run every ten minutes: bytes written over bytes kept stay below 5, files below 60."""
    held, written, most, number = list[Candidate](), 0, 0, 0
    for _ in range(144):
        for _ in range(600):
            number += 1
            held.append(Candidate(str(number), (16_000, "ASX"), 10_000, 100, number))
        for job in plan_jobs(held, target_bytes=256 * MB, min_files=8, is_whole=False):
            number += 1
            gone = {f.path for f in job.files}
            held = [f for f in held if f.path not in gone] + [Candidate(str(number), job.partition, job.size_bytes, job.rows, job.files[0].first)]
            written += job.size_bytes
        most = max(most, len(held))
    assert written / (86_400 * 10_000) < 5
    assert most < 60
