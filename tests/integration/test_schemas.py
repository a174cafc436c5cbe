"""`k2 schemas` on the registry of one machine: what it lists, compares, refuses by field, and registers."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from k2stream.cli import app
from k2stream.decode.registry import open_registry
from k2stream.errors import RegistryError
from k2stream.rows import AvroSchema, avro_schema
from k2stream.settings import Settings
from k2stream.subjects import columns_of, objections, register
from tests.integration.lake_site import LakeSite, soon
from tests.integration.test_evolution_lake import grown
from tests.integration.test_replace import TP, lake, put
from tests.integration.test_replace_columns import put_grown

SUBJECT = "market.crypto.trades-value"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("K2_HOME", str(tmp_path / "k2"))
    return Settings(home=tmp_path / "k2", fsync=False)


def with_field(**field: Any) -> AvroSchema:
    schema = avro_schema("trade_v2")
    return {**schema, "fields": [*schema["fields"], field]}


def file_of(tmp_path: Path, schema: object) -> str:
    path = tmp_path / "next.avsc"
    path.write_text(json.dumps(schema), encoding="utf-8")
    return str(path)


def k2(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["schemas", *arguments])


def test_versions_are_registered_listed_and_compared(settings: Settings, tmp_path: Path) -> None:
    """The shipped schema first, then one with a field more: both are there, and the difference is that field."""
    assert json.loads(k2("register", SUBJECT, "--json").stdout) == {"subject": SUBJECT, "id": 1}
    newer = file_of(tmp_path, with_field(name="fee", type=["null", "long"], default=None))
    assert k2("check", SUBJECT, newer).exit_code == 0
    for _ in range(2):
        assert json.loads(k2("register", SUBJECT, newer, "--json").stdout)["id"] == 2
    listed = json.loads(k2("list", "--json").stdout)
    assert [(v["version"], v["id"], v["fields"], v["is_contract"]) for v in listed] == [(1, 1, 15, True), (2, 2, 16, False)]
    assert f"{SUBJECT}  version 1  id 1  15 fields  as shipped" in k2("list").stdout
    for arguments in ((SUBJECT,), (SUBJECT, "1"), (SUBJECT, "1", "2")):
        assert k2("diff", *arguments).stdout == "+ fee: null or long, default null\n"
    assert k2("diff", SUBJECT, "2", "1").stdout == "- fee: null or long, default null\n"
    assert json.loads(k2("diff", SUBJECT, "2", "--json").stdout) == []


REFUSED: dict[str, tuple[AvroSchema, str]] = {
    "no default": (with_field(name="fee", type="long"), "TradeV2.fee is new and has no default"),
    "no column for its type": (with_field(name="legs", type={"type": "array", "items": {"type": "array", "items": "int"}}, default=[]), "field legs"),
    "the table's own name": (with_field(name="offset", type="long", default=0), "field offset: the tables have a column of that name"),
    "a field that the contract needs": (
        {**avro_schema("trade_v2"), "fields": [f for f in avro_schema("trade_v2")["fields"] if f["name"] != "symbol"]},
        "field symbol",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_version_that_somebody_could_not_read_is_refused_by_field(why: str, settings: Settings, tmp_path: Path) -> None:
    """By check, which changes nothing, and by register."""
    schema, words = REFUSED[why]
    assert k2("register", SUBJECT).exit_code == 0
    checked = k2("check", SUBJECT, file_of(tmp_path, schema), "--json")
    assert checked.exit_code == 1
    assert any(words in objection for objection in json.loads(checked.stdout)["objections"])
    with pytest.raises(RegistryError, match=words.replace(".", r"\.")):
        register(settings, open_registry(settings), SUBJECT, schema)
    assert [v.number for v in open_registry(settings).versions(SUBJECT)] == [1]


def test_the_tables_columns_have_a_say(settings: Settings) -> None:
    """Avro would widen long to double, Iceberg does not: refused before a record is written with it, and shown by the difference from the table."""
    site = LakeSite(settings.home)
    worker = site.started()
    worker.commit(worker.write(grown(1, 0, 2)), soon())
    registry = open_registry(settings)
    assert objections(registry, SUBJECT, with_field(name="fee", type=["null", "double"], default=None), columns_of(settings, SUBJECT)) == [
        "workers could not read its records as trade_v2: field fee: it is double, and the column of that name decimal128(12, 3)"
    ]
    fee = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}
    register(settings, registry, SUBJECT, with_field(name="fee", type=["null", fee], default=None))
    assert k2("diff", SUBJECT, "--table").stdout == "No difference.\n"
    register(settings, registry, "market.equities.trades-value", with_field(name="tier", type="int", default=0))
    assert k2("diff", "market.equities.trades-value", "--table").stdout.splitlines() == [
        "+ tier: int32, comes with the first row that has it",
        "- fee: decimal128(12, 3), null in rows of this version",
    ]


def test_instruments_are_compared_with_their_table_too(settings: Settings) -> None:
    """Its own `delisted_at` is nothing that a schema lacks, nor a name that one may add; an added column is known like those of other tables."""
    subject, plain, registry = "market.equities.reference_data-value", avro_schema("reference_data_v2"), open_registry(settings)
    site = LakeSite(settings.home)
    lake(site).register({TP: 0}, soon())
    put(lake(site), 0, [{}])
    register(settings, registry, subject, plain)
    assert k2("diff", subject, "--table").stdout == "No difference.\n"
    put_grown(lake(site), 1, [{}], values=[Decimal(1)])
    for name, words in (("delisted_at", "the tables have a column of that name"), ("fee", "the column of that name decimal128(12, 3)")):
        schema = {**plain, "fields": [*plain["fields"], {"name": name, "type": "string", "default": ""}]}
        (objection,) = objections(registry, subject, schema, columns_of(settings, subject))
        assert f"field {name}" in objection
        assert words in objection
    assert k2("diff", subject, "--table").stdout == "- fee: decimal128(12, 3), null in rows of this version\n"


@pytest.mark.parametrize("subject", ["trades", "market.crypto.trades", "market.crypto.candles-value", "x.crypto.trades-value"])
def test_a_subject_that_no_topic_has_is_named(subject: str, settings: Settings) -> None:
    """What was expected, what was found."""
    with pytest.raises(RegistryError, match="expected a subject market"):
        register(settings, open_registry(settings), subject, avro_schema("trade_v2"))
