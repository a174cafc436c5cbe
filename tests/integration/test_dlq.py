"""`k2 dlq` on a lake whose letters were committed: chosen, rehearsed, mended, parked, exported; nothing is published by looking."""

import base64
import io
import json
from pathlib import Path

import fastavro
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import LongType
from typer.testing import CliRunner

from k2stream.cli import app
from k2stream.deadletter.edit import edited, edited_bytes
from k2stream.deadletter.envelope import decode_letter, letter_of, letter_of_line
from k2stream.deadletter.keep import keep_letters
from k2stream.deadletter.kept import origins_of_table
from k2stream.deadletter.rows import letter_rows
from k2stream.deadletter.run import mended_of
from k2stream.deadletter.standing import DeadLetters
from k2stream.decode.registry import open_registry
from k2stream.errors import QueryError
from k2stream.feed.avro import encode_one
from k2stream.rows import avro_schema, body_schema
from k2stream.testing import trade_rows
from k2stream.topics import TopicName
from k2stream.verdict import Reason, Reject
from tests.integration.lake_site import TP, LakeSite, soon, window

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeSite:
    """Offsets 0 to 3: two rows, one letter whose price is 0, one of noise, which the outbox has not taken yet."""
    site = LakeSite(tmp_path / "k2")
    monkeypatch.setenv("K2_HOME", str(tmp_path / "k2"))
    schema_id = open_registry(site.settings).register(TopicName.parse(TP.topic).subject, avro_schema("trade_v2"))
    row = trade_rows([{"trade_id": "ASX-9", "price": 0}]).select(body_schema("trade_v2").names).to_pylist()[0]
    value = encode_one(row, schema="trade_v2", schema_id=schema_id)
    free = Reject(*TP, 1, 1_394_400_000_000, b"BHP", value, (("h", b"\xff"),), Reason.PRICE_MUST_BE_POSITIVE, "price must be ...", schema_id)
    noise = Reject(*TP, 3, 1_394_500_000_000, b"CBA", b"\x07", (), Reason.BAD_MAGIC, "byte 7", None)
    worker = site.started()
    for number, reject in enumerate((free, noise)):
        plain = window(number, 2 * number, 2 * number + 2, letters=[2 * number + 1])
        letters = letter_rows([letter_of(reject)])
        worker.commit(worker.write(type(plain)(plain.number, plain.rows, plain.events, plain.deltas, plain.spans, letters=letters)), soon())
        if number == 0:
            assert worker.take_outbox(soon()) == 1
    return site


def noted(site: LakeSite, note: str | None) -> bytes:
    """A good trade whose schema has a field more than the contract."""
    contract = avro_schema("trade_v2")
    schema = {**contract, "fields": [*contract["fields"], {"name": "venue_note", "type": ["null", "string"], "default": None}]}
    row = trade_rows([{"trade_id": "ASX-77"}]).select(body_schema("trade_v2").names).to_pylist()[0]
    schema_id = open_registry(site.settings).register(TopicName.parse(TP.topic).subject, schema)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), {**row, "venue_note": note})
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()


def spoil_values(path: Path) -> None:
    """Write noise over the values of a file, and over nothing else."""
    groups = pq.read_metadata(path)
    with path.open("r+b") as file:
        for group in map(groups.row_group, range(groups.num_row_groups)):
            column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "value")
            file.seek(column.dictionary_page_offset or column.data_page_offset)
            file.write(b"\xff" * column.total_compressed_size)


def k2(*arguments: str, code: int = 0) -> str:
    """What a `k2 dlq` command prints."""
    done = CliRunner().invoke(app, ["dlq", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def ids(*arguments: str) -> list[str]:
    said = k2("list", "--format", "json", *arguments)
    return [row["id"].removeprefix(f"{TP.topic}/") for row in json.loads(said)]


def test_letters_are_chosen_by_what_they_say(site: LakeSite) -> None:
    """By reason, topic, symbol, time, id and state; what the outbox has not taken is there too."""
    assert ids() == ["0/1", "0/3"]
    assert ids("--reason", "bad_magic") == ["0/3"]
    assert ids("--symbol", "BHP") == ["0/1"]
    assert ids("--topic", "market.crypto.*") == []
    assert ids("--topic", "market.equities.*") == ["0/1", "0/3"]
    assert ids("--from", "2014-03-10T20:00") == ["0/3"]
    assert ids("--to", "2014-03-10T20:00") == ["0/1"]
    assert ids("--id", f"{TP.topic}/0/3") == ["0/3"]
    assert ids("--state", "parked") == []
    assert "bad_magic" in k2("histogram")


def test_a_rehearsal_says_what_would_become_of_each_and_publishes_nothing(site: LakeSite) -> None:
    """It is the default: today's schemas and rules, an edit counted in."""
    said = k2("replay")
    assert "1 dead price_must_be_positive" in said
    assert "1 dead bad_magic" in said
    record = f"{TP.topic}/0/1"
    k2("edit", record, "--set", "price=35.120", "--set", "side=BUY")
    said = k2("replay", "--id", record)
    assert "1 row, as " in said
    assert "Nothing was published" in said
    assert "edited" in k2("show", record)
    k2("edit", record, "--set", "trade_id=ASX-0-0")
    assert "1 duplicate" in k2("replay", "--id", record)  # that trade has a row
    assert "published" not in k2("trail")
    assert not site.settings.home_path("log").exists()


def test_a_rehearsal_refuses_what_does_not_fit_the_columns_that_the_table_got_later(site: LakeSite) -> None:
    """A field of another type than the table's column of that name stays a letter, as a worker would find."""
    with site.stranger().update_schema() as change:
        change.add_column("venue_note", LongType())
    record = f"{TP.topic}/0/3"
    with DeadLetters(site.settings) as letters:
        edited_bytes(letters, record, noted(site, "late"), key=None)
    assert "1 dead " in k2("replay", "--id", record)


def test_an_edit_of_one_field_never_drops_another(site: LakeSite) -> None:
    """A field that the contract does not have would be lost: said, and nothing is edited; one that is null is no loss."""
    record = f"{TP.topic}/0/3"
    with DeadLetters(site.settings) as letters:
        edited_bytes(letters, record, noted(site, "late"), key=None)
        before = letters.edits()
        with pytest.raises(QueryError, match=r"venue_note.*--value-file"):
            edited(letters, record, {"price": "35.12"}, key=None)
        assert letters.edits() == before
        edited_bytes(letters, record, noted(site, None), key=None)
        edited(letters, record, {"price": "35.12"}, key=None)
    assert "1 row, as " in k2("replay", "--id", record)


def test_letters_that_can_never_pass_do_not_starve_one_that_can(site: LakeSite) -> None:
    """The bound of a round counts what passes, not what comes before it."""
    reasons = [Reason.PRICE_MUST_BE_POSITIVE.value, Reason.BAD_MAGIC.value]
    assert mended_of(site.settings, reasons, 1) == []
    with DeadLetters(site.settings) as letters:
        edited_bytes(letters, f"{TP.topic}/0/3", noted(site, None), key=None)
    assert mended_of(site.settings, reasons, 1) == [f"{TP.topic}/0/3"]


def test_a_look_at_all_letters_reads_no_value(site: LakeSite) -> None:
    """Values are most of what letters weigh, and an agent looks twice a minute: with values that cannot be read, everything but they is answered."""
    assert [row["size_bytes"] > 1 for row in json.loads(k2("list", "--format", "json"))] == [True, False]
    for file in [path for path in site.files("dead_letters") if path.suffix == ".parquet"]:
        spoil_values(Path(file))
    with pytest.raises(QueryError):
        k2("list", "--format", "json")
    assert "bad_magic" in k2("list")
    with DeadLetters(site.settings) as letters:
        assert letters.settle() == 0


def test_what_is_parked_no_replay_takes_until_it_is_released(site: LakeSite) -> None:
    """Who and why stand in the trail; an id that is none is named, and nothing is parked then."""
    record = f"{TP.topic}/0/3"
    k2("park", record, "--why", "noise of a test")
    assert ids("--state", "parked") == ["0/3"]
    assert "1 open letters" in k2("replay")
    assert "noise of a test" in k2("trail", "--format", "csv")
    k2("park", record, "--release")
    assert ids("--state", "open") == ["0/1", "0/3"]
    done = CliRunner().invoke(app, ["dlq", "park", f"{TP.topic}/0/77"])
    assert "0/77" in str(done.exception)


def test_an_export_holds_the_letters_whole(site: LakeSite, tmp_path: Path) -> None:
    """As they stand in their topic: bytes, headers and all."""
    k2("export", "--out", str(tmp_path / "letters.jsonl"))
    first, second = [decode_letter(line) for line in (tmp_path / "letters.jsonl").read_bytes().splitlines()]
    assert (first.headers, first.reason, second.value) == ((("h", b"\xff"),), Reason.PRICE_MUST_BE_POSITIVE, b"\x07")
    assert base64.b64encode(first.value or b"").decode() in (tmp_path / "letters.jsonl").read_text(encoding="utf-8")


def test_lines_of_files_are_kept_once_and_never_replayed(site: LakeSite) -> None:
    """They have no offset to go back to, and no audit counts them."""
    lines = [letter_of_line(TP.topic, "a b/c.csv", n, timestamp_ms=1, value=b"1,2", reason=Reason.MALFORMED, text="bad") for n in (2, 3)]
    assert keep_letters(site.settings, lines) == 2
    assert keep_letters(site.settings, lines) == 0
    assert ids("--state", "file") == ["file:a%20b%2Fc.csv/2", "file:a%20b%2Fc.csv/3"]
    assert "2 open letters" in k2("replay")
    assert origins_of_table(site.settings) == {(*TP, 1), (*TP, 3)}
    assert site.worker().take_outbox(soon()) == 1
    assert len(site.rows("dead_letters")) == 4


def test_a_home_without_letters_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tables yet: one sentence; tables without letters: an empty answer."""
    monkeypatch.setenv("K2_HOME", str(tmp_path / "k2"))
    assert "There are no tables yet" in str(CliRunner().invoke(app, ["dlq", "list"]).exception)
    LakeSite(tmp_path / "k2").started()
    assert k2("list") == ""
    assert k2("replay") == "No open letter is chosen.\n"
