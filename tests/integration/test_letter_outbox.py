"""Dead letters reach their table each once by origin: races, deaths between the steps, and rollbacks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2stream.deadletter.envelope import ATTEMPT_HEADER, FIRST_ORIGIN_HEADER, letter_of
from k2stream.deadletter.rows import letter_rows, letters_of
from k2stream.lake import outbox
from k2stream.lake.offsets import Entry
from k2stream.records import TopicPartition
from k2stream.testing import CatalogThatLosesTheRace
from k2stream.verdict import Reason, Reject
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window


class Died(BaseException):
    """The worker ends here."""


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **place)


def origins(site: LakeSite) -> list[int]:
    """Offsets of all letters in the table; one that is there twice shows twice."""
    return sorted(site.rows("dead_letters")["offset"].to_pylist())


def test_a_letter_says_everything_that_its_record_said(site: LakeSite) -> None:
    """Bytes, headers in their order, a time that no calendar has: what was read is what is kept."""
    headers = (("h", b"\x00\xff"), ("h", b""), (FIRST_ORIGIN_HEADER, b"market.equities.trades.asx/0/1"), (ATTEMPT_HEADER, b"2"))
    rejects = [
        Reject(*TP, 0, 1 << 62, b"BHP", b"\x00\x01\xff", headers, Reason.TRUNCATED, "'\udcff'", 7),
        Reject(*TP, 1, -1, None, None, (), Reason.NO_VALUE, "", None),
    ]
    letters = [letter_of(reject) for reject in rejects]
    worker = site.started()
    plain = window(1, 0, 2, letters=[0, 1])
    plain = type(plain)(plain.number, plain.rows, plain.events, plain.deltas, plain.spans, letters=letter_rows(letters))
    worker.commit(worker.write(plain), soon())
    assert worker.take_outbox(soon()) == 2
    kept = site.rows("dead_letters").sort_by("offset")
    first, second = letters_of(kept)
    assert (first.value, first.key, first.headers, first.timestamp_ms) == (b"\x00\x01\xff", b"BHP", headers, 1 << 62)
    assert (first.first_origin, first.attempt, first.origin) == ("market.equities.trades.asx/0/1", 3, "market.equities.trades.asx/0/0")
    assert second == letters[1]
    assert kept["symbol"].to_pylist() == ["BHP", None]
    assert len(set(kept["commit_id"].to_pylist())) == 1


def test_two_takers_append_each_letter_once(site: LakeSite) -> None:
    """Both see the same file untaken; the required head lets one append, the other finds it done."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, letters=[1, 2], events=["a"])), soon())
    rival = site.worker()
    slow = site.worker(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.take_outbox(soon())))
    assert slow.take_outbox(soon()) == 0
    assert worker.take_outbox(soon()) == 0
    assert (origins(site), site.event_ids()) == ([1, 2], ["a"])


def test_letters_of_a_worker_that_died_after_its_commit_are_taken_by_the_next(site: LakeSite) -> None:
    """Between steps 3 and 5 the rows are in, the letters are not: whoever comes first takes them."""

    def die(step: str) -> None:
        if step == "5.before":
            raise Died

    dying = site.started(on_step=die)
    dying.commit(dying.write(window(1, 0, 3, letters=[1])), soon())
    with pytest.raises(Died):
        dying.take_outbox(soon())
    assert origins(site) == []
    assert site.worker().take_outbox(soon()) == 1
    assert site.worker().take_outbox(soon()) == 0
    assert origins(site) == [1]


def test_a_rollback_of_the_source_doubles_no_letter(site: LakeSite) -> None:
    """The same records are read again, with one that became a letter only now: old ones are left out, the new one is taken."""
    worker = site.started()
    kept = worker.commit(worker.write(window(1, 0, 2, letters=[1])), soon())
    worker.commit(worker.write(window(2, 2, 6, letters=[2, 4])), soon())
    assert worker.take_outbox(soon()) == 3
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    worker = site.worker()
    worker.commit(worker.write(window(3, 2, 7, letters=[2, 3, 4, 6])), soon())
    assert worker.take_outbox(soon()) == 2
    assert origins(site) == [1, 2, 3, 4, 6]


def test_expiry_keeps_a_snapshot_whose_letters_wait(tmp_path: Path, place: Place) -> None:
    """A letters' file is named by its snapshot alone until it is taken; then it is the letters table's and stays."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    for number in range(12):
        worker.commit(worker.write(window(number, number, number + 1, letters=[1] if number == 1 else [])), soon())
    worker._expiries[0].run(soon())
    assert site.snapshots("window") == 11
    assert worker.take_outbox(soon()) == 1
    assert len(site.stranger().metadata.snapshots) == 4
    assert origins(site) == [1]


def test_each_partition_of_letters_is_its_own(site: LakeSite) -> None:
    """The same offset of another partition is another letter."""
    other = TopicPartition(TP.topic, 1)
    worker = site.started()
    worker.register({other: 0}, soon())
    worker.commit(worker.write(window(1, 0, 1, letters=[0])), soon())
    worker.commit(worker.write(window(2, 0, 1, tp=other, letters=[0])), soon())
    assert worker.take_outbox(soon()) == 2
    assert sorted(site.rows("dead_letters")["origin"].to_pylist()) == [f"{TP.topic}/0/0", f"{TP.topic}/1/0"]


def test_letters_are_handed_on_without_reading_what_they_hold(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of bad records is megabytes of values: whether its file is new is seen by where its rows come from."""
    read: list[list[str] | None] = []
    whole = pq.read_table

    def watched(stream: object, columns: list[str] | None = None) -> pa.Table:
        read.append(columns)
        return whole(stream, columns=columns)

    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, letters=[1, 2], events=["a"])), soon())
    monkeypatch.setattr(outbox.pq, "read_table", watched)
    worker.take_outbox(soon())
    assert {tuple(columns or ["all"]) for columns in read} <= {("topic", "partition", "offset"), ("origin",), ("event_id",)}
    assert read
    assert (origins(site), site.event_ids()) == ([1, 2], ["a"])


def test_what_may_have_been_taken_is_told_for_each_partition() -> None:
    """Offsets below where each partition had come to, of many topics and partitions; all of them where nothing is known."""
    chance = np.random.default_rng(1)
    topics, partitions, offsets = chance.choice(["a", "b", "c"], 500).tolist(), chance.integers(0, 3, 500).tolist(), chance.integers(0, 9, 500).tolist()
    below = {TopicPartition(t, p): Entry(0, p + len(t) + 3) for t in "ab" for p in (0, 2)}
    rows = pa.table({"topic": topics, "partition": pa.array(partitions, pa.int32()), "offset": offsets})
    wanted = [(tp := TopicPartition(t, p)) in below and o < below[tp].next for t, p, o in zip(topics, partitions, offsets, strict=True)]
    assert outbox.doubtful_rows(rows, below).tolist() == wanted
    assert outbox.doubtful_rows(rows, None).all()


def test_letters_that_are_written_are_held_no_longer(site: LakeSite) -> None:
    """Between their file and the commit a window of bad records would else lie in memory once more."""
    staged = site.started().write(window(1, 0, 3, letters=[1, 2]))
    assert staged.letters_file is not None
    assert staged.window.letters is None
