"""Gap events reach the gaps table once, whoever takes them and whenever somebody dies."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from k2stream.clock import Deadline, SystemClock
from k2stream.errors import LakeError
from k2stream.lake import outbox
from k2stream.lake.expiry import Expiry
from k2stream.lake.pins import pin, pins_of
from k2stream.lake.table import RowsLake
from k2stream.lake.writer import write_bytes
from k2stream.testing import CatalogThatCommitsThenFails, CatalogThatLosesTheRace
from tests.integration.conftest import Place
from tests.integration.lake_site import TP, LakeSite, soon, window


@pytest.fixture
def site(tmp_path: Path, place: Place) -> LakeSite:
    return LakeSite(tmp_path, **place)


class ClockThatIsSet(SystemClock):
    """A busy machine's: time passes where the test says."""

    passed_seconds = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_seconds

    def later(self, seconds: float) -> None:
        self.passed_seconds += seconds


class Died(Exception):
    """The worker's end, as far as this process goes."""


def dying_at(step: str) -> Callable[[str], None]:
    """An on_step that ends the worker there."""

    def die(name: str) -> None:
        if name == step:
            raise Died(step)

    return die


def _commit_and_take(worker: RowsLake) -> None:
    worker.commit(worker.write(window(1, 0, 3, events=["a"])), soon())
    worker.take_outbox(soon())


def test_two_takers_append_each_event_once(site: LakeSite) -> None:
    """Both see the same snapshots untaken; the required head lets one append, the other finds it done."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, events=["a", "b"])), soon())
    rival = site.worker()
    slow = site.worker(lambda c: CatalogThatLosesTheRace(c, other=lambda: rival.take_outbox(soon())))
    assert slow.take_outbox(soon()) == 0
    assert worker.take_outbox(soon()) == 0
    assert site.event_ids() == ["a", "b"]


@pytest.mark.parametrize("step", ["3.after", "4.decided", "5.head", "5.before"])
def test_events_of_a_worker_that_died_after_its_commit_are_taken_by_the_next(site: LakeSite, step: str) -> None:
    """Between steps 3 and 5 the rows are in, the events are not: whoever comes first takes them."""
    dying = site.started(on_step=dying_at(step))
    with pytest.raises(Died):
        _commit_and_take(dying)
    assert site.offsets() == [0, 1, 2]
    assert site.event_ids() == []
    following = site.worker()
    assert following.take_outbox(soon()) == 1
    following.commit(following.write(window(2, 3, 5, events=["b"])), soon())
    assert following.take_outbox(soon()) == 1
    assert site.event_ids() == ["a", "b"]


def test_a_worker_that_died_after_taking_leaves_nothing_to_take(site: LakeSite) -> None:
    """The append and `applied-through` are one commit."""
    dying = site.started(on_step=dying_at("5.after"))
    dying.commit(dying.write(window(1, 0, 3, events=["a"])), soon())
    with pytest.raises(Died):
        dying.take_outbox(soon())
    assert site.worker().take_outbox(soon()) == 0
    assert site.event_ids() == ["a"]


@pytest.mark.parametrize("status", [409, 500, None])
def test_a_taking_that_landed_behind_an_error_is_not_repeated(site: LakeSite, status: int | None) -> None:
    """The outbox looks before it acts, as windows do."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, events=["a"])), soon())
    other = site.worker(lambda c: CatalogThatCommitsThenFails(c, status=status))
    assert other.take_outbox(soon()) == 1
    assert site.event_ids() == ["a"]


def test_an_event_says_which_commit_brought_it(site: LakeSite) -> None:
    """Commit id and time are in the gaps table, and nowhere among the columns that the records decide."""
    worker = site.started()
    staged = worker.write(window(1, 0, 3, events=["a"]))
    worker.commit(staged, soon())
    worker.take_outbox(soon())
    event = site.rows("gaps").to_pylist()[0]
    assert (event["event_id"], event["commit_id"]) == ("a", staged.commit_id)
    assert event["written_at"].timestamp() * 1e6 == pytest.approx(staged.written_at_us)


def forget_what_was_taken(site: LakeSite) -> None:
    """A foreign writer's snapshot is all that is kept of the gaps table's history."""
    stranger = site.stranger("gaps")
    stranger.append(stranger.scan().to_arrow().slice(0, 0))
    stranger.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in stranger.metadata.snapshots[:-1]]).commit()


def test_a_gaps_table_without_a_vector_takes_events_by_id(site: LakeSite) -> None:
    """A foreign writer's history in gaps loses `applied-through`: every event is looked up, none lands twice."""
    worker = site.started()
    worker.commit(worker.write(window(1, 0, 3, events=["a"])), soon())
    worker.take_outbox(soon())
    forget_what_was_taken(site)
    worker = site.worker()
    worker.commit(worker.write(window(2, 3, 5, events=["b"])), soon())
    assert worker.take_outbox(soon()) == 1
    assert site.event_ids() == ["a", "b"]


def test_a_gaps_table_without_a_vector_takes_a_backlog_by_id_to_its_end(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several appends: what the first of them says of itself is not what was ever taken, so the next files are looked up as well."""
    monkeypatch.setattr(outbox, "TAKEN_AT_ONCE", 2)
    worker = site.started()
    for number in range(5):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number}"])), soon())
        worker.take_outbox(soon())
    forget_what_was_taken(site)
    worker = site.worker()
    worker.commit(worker.write(window(5, 5, 6, events=["e5"])), soon())
    with pytest.raises(Died):
        site.worker(on_step=dying_at("5.after")).take_outbox(soon())
    assert site.worker().take_outbox(soon()) == 1
    assert site.event_ids() == [f"e{number}" for number in range(6)]


def test_expiry_keeps_what_nobody_has_taken(tmp_path: Path, place: Place) -> None:
    """A snapshot whose events wait stays, and all above it; once they are taken the table shrinks."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    for number in range(12):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number:02}"] if number in (1, 4) else [])), soon())
    worker._expiries[0].run(soon())
    assert site.snapshots("window") == 11  # those of windows 1 to 11; the start and window 0 went
    assert worker.take_outbox(soon()) == 2
    assert len(site.stranger().metadata.snapshots) == 4
    assert site.event_ids() == ["e01", "e04"]
    assert site.offsets() == list(range(12))


def test_expiry_deletes_metadata_and_never_data(tmp_path: Path, place: Place) -> None:
    """What only expired snapshots named goes: lists, manifests, tracker files. Rows and events stay readable."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    for number in range(40):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number:02}"], tracker=b"t%d" % number)), soon())
        worker.take_outbox(soon())
    assert site.offsets() == list(range(40))
    assert site.event_ids() == [f"e{n:02}" for n in range(40)]
    files = site.files()
    named = {p.name for p in files}
    kept = site.stranger().metadata.snapshots
    assert len(kept) <= 6
    lists = {Path(s.manifest_list).name for s in kept}
    assert {n for n in named if n.startswith("snap-")} == lists
    manifests = {Path(m.manifest_path).name for s in kept for m in s.manifests(site.stranger().io)}
    assert {n for n in named if "-m" in n and n.endswith(".avro") and not n.startswith("snap-")} == manifests
    assert len([n for n in named if n.endswith(".tracker")]) == len(kept)
    assert len([n for n in named if n.endswith(".metadata.json")]) <= 22
    assert worker.tracker_blob(worker.head().vector[TP].tracker_file, TP) == (40, b"t39")


def test_a_tracker_file_lives_as_long_as_a_kept_snapshot_names_it(tmp_path: Path, place: Place) -> None:
    """Windows without a tracker file carry the last one on; expiry of the snapshot that brought it leaves it."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    worker.commit(worker.write(window(0, 0, 1, tracker=b"old")), soon())
    for number in range(1, 20):
        head = worker.commit(worker.write(window(number, number, number + 1)), soon())
        worker.take_outbox(soon())
    assert worker.head().vector[TP].tracker_file == head.vector[TP].tracker_file
    assert site.worker().tracker_blob(head.vector[TP].tracker_file, TP) == (1, b"old")


def test_events_files_that_only_an_expired_snapshot_named_go(tmp_path: Path, place: Place) -> None:
    """After a rollback the same events lie in a second file that the gaps table never took; with its snapshot it goes."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    kept = worker.commit(worker.write(window(0, 0, 2)), soon())
    worker.commit(worker.write(window(1, 2, 4, events=["a"])), soon())
    worker.take_outbox(soon())
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    again = worker.write(window(2, 2, 4, events=["a"]))
    worker.commit(again, soon())
    assert worker.take_outbox(soon()) == 0
    assert site.exists(again.events_file)
    for number in range(3, 12):
        worker.commit(worker.write(window(number, number + 1, number + 2)), soon())
        worker.take_outbox(soon())
    assert not site.exists(again.events_file)
    assert site.event_ids() == ["a"]


def test_expiry_covers_a_foreign_head_with_the_vector(tmp_path: Path, place: Place) -> None:
    """PyIceberg's expiry cuts the parent chain: before anything goes, the head carries the vector itself."""
    site = LakeSite(tmp_path, snapshots_kept=5, **place)
    worker = site.started()
    for number in range(8):
        worker.commit(worker.write(window(number, number, number + 1)), soon())
    stranger = site.stranger()
    stranger.append(window(0, 0, 0).rows)
    following = site.worker()
    following.load()
    following._expiries[0].run(soon())
    assert following.head().has_own_vector
    assert following.head().vector[TP].next == 8
    assert len(site.stranger().metadata.snapshots) == 4


def test_a_damaged_tracker_file_is_no_state_not_an_error(site: LakeSite) -> None:
    """The table's rows are read instead."""
    worker = site.started()
    head = worker.commit(worker.write(window(0, 0, 1, tracker=b"x")), soon())
    write_bytes(site.stranger().io, head.vector[TP].tracker_file, b"damaged")
    assert site.worker().tracker_blob(head.vector[TP].tracker_file, TP) is None


@pytest.mark.parametrize("step", ["5.head", "5.before", "5.after"])
def test_a_backlog_is_taken_in_several_appends_though_a_taker_dies_between(site: LakeSite, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """No taking is larger than its bound; the oldest come first, and each event once."""
    monkeypatch.setattr(outbox, "TAKEN_AT_ONCE", 3)
    worker = site.started()
    for number in range(8):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number}"])), soon())
    with pytest.raises(Died):
        site.worker(on_step=dying_at(step)).take_outbox(soon())
    assert site.event_ids() == (["e0", "e1", "e2"] if step == "5.after" else [])
    following = site.worker()
    assert [following.take_outbox(soon()) for _ in range(2)] == ([5, 0] if step == "5.after" else [8, 0])
    assert site.event_ids() == [f"e{number}" for number in range(8)]
    assert site.snapshots("outbox", "gaps") == 3


def test_a_backlog_that_takes_longer_than_its_time_is_taken_on_by_the_next(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is not held up for ever: one append at least, and what is left is said."""
    monkeypatch.setattr(outbox, "TAKEN_AT_ONCE", 3)
    clock = ClockThatIsSet()
    worker = site.started(on_step=lambda step: clock.later(60) if step == "5.after" else None)
    for number in range(8):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number}"])), soon())
    with capture_logs() as said:
        assert [worker.take_outbox(Deadline.after(30, clock)) for _ in range(4)] == [3, 3, 2, 0]
    assert [entry["files"] for entry in said if entry["event"] == "outbox.behind"] == [5, 2]
    assert site.event_ids() == [f"e{number}" for number in range(8)]


def test_a_rollback_amid_a_backlog_doubles_no_event(site: LakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken of it is looked up by id, what was not comes from the records that are read again."""
    monkeypatch.setattr(outbox, "TAKEN_AT_ONCE", 2)
    worker = site.started()
    kept = worker.commit(worker.write(window(0, 0, 1, events=["e0"])), soon())
    for number in range(1, 6):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number}"])), soon())
    with pytest.raises(Died):
        site.worker(on_step=dying_at("5.after")).take_outbox(soon())
    assert site.event_ids() == ["e0", "e1"]
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    worker = site.worker()
    for first, end in ((1, 3), (3, 7)):
        worker.commit(worker.write(window(10 + first, first, end, events=[f"e{number}" for number in range(first, end)])), soon())
    assert worker.take_outbox(soon()) == 5
    assert site.event_ids() == [f"e{number}" for number in range(7)]


def test_a_mass_of_events_that_are_held_is_looked_up_in_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever came again, in however many files: each file of the table that may hold it is opened once a taking."""
    site = LakeSite(tmp_path)
    worker = site.started()
    kept = worker.commit(worker.write(window(0, 0, 1, events=["a"])), soon())
    for number in range(1, 5):
        worker.commit(worker.write(window(number, number, number + 1, events=[f"e{number}"])), soon())
        worker.take_outbox(soon())
    site.stranger().manage_snapshots().rollback_to_snapshot(kept.snapshot_id).commit()
    worker = site.worker()
    for number in range(1, 7):
        worker.commit(worker.write(window(10 + number, number, number + 1, events=[f"e{number}"])), soon())
    opened: list[object] = []

    def watched(stream: object) -> pq.ParquetFile:
        opened.append(stream)
        return pq.ParquetFile(stream)

    monkeypatch.setattr(outbox, "pq", SimpleNamespace(**{**vars(pq), "ParquetFile": watched}))
    assert worker.take_outbox(soon()) == 2
    assert len(opened) == 4  # those of e1 to e4; not that of a, which no bound admits
    assert site.event_ids() == ["a", *(f"e{number}" for number in range(1, 7))]


def test_events_that_cannot_be_read_are_one_sentence(site: LakeSite) -> None:
    """Somebody removed an events file by hand: nothing is taken, the sentence names the file."""
    worker = site.started()
    staged = worker.write(window(1, 0, 3, events=["a"]))
    worker.commit(staged, soon())
    site.remove(staged.events_file)
    with pytest.raises(LakeError, match=rf"^Cannot read gap events at {staged.events_file}"):
        worker.take_outbox(soon())


def test_a_pin_that_comes_in_the_moment_of_expiry_is_not_expired(tmp_path: Path, place: Place) -> None:
    """Whoever was told that a snapshot is kept finds it: this expiry is refused, and the next lets the others go."""
    site = LakeSite(tmp_path, snapshots_kept=50, **place)
    worker = site.started()
    ids = [worker.commit(worker.write(window(n + 1, 3 * n, 3 * n + 3)), soon()).snapshot_id or 0 for n in range(8)]

    def pins_the_oldest() -> None:
        pin(worker.committers()["trades"], ids[0], until_ms=9_999_999_999_999, deadline=soon())

    slow = site.worker(lambda c: CatalogThatLosesTheRace(c, other=pins_the_oldest))
    expiry = Expiry(slow.committers()["trades"], kept=4, is_taken=lambda _t, _s: True)
    with pytest.raises(LakeError):
        expiry.run(soon())
    assert expiry.run(soon()) > 0
    assert [kept.snapshot_id for kept in pins_of(site.stranger())] == ids[:1]
    assert site.stranger().snapshot_by_id(ids[0]) is not None
