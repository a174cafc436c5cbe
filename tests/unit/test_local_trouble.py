"""What ends a start and what it waits for: a file of this machine does not come back by itself, a service may."""

from pathlib import Path

import pytest

from k2stream.app import create_app
from k2stream.errors import K2Error
from k2stream.lake.catalog import open_catalog, open_table
from k2stream.lake.local import is_of_this_machine
from k2stream.settings import Settings
from k2stream.worker_process import free_port
from tables.lake.trades import TRADES


def trouble_of(home: Path, **settings: str) -> K2Error:
    """What opening the tables raises."""
    whole = Settings(home=home, **settings)  # type: ignore[arg-type] # texts, whatever the field
    with pytest.raises(K2Error) as caught:
        open_table(open_catalog(whole), whole, TRADES)
    return caught.value


@pytest.mark.parametrize(
    "settings", [{"catalog_uri": "foo://host/x"}, {"catalog_uri": "nonsense"}, {"warehouse": "foo://bucket"}, {"warehouse": "/proc/k2"}], ids=str
)
def test_a_setting_that_names_nothing_is_not_waited_for(tmp_path: Path, settings: dict[str, str]) -> None:
    """A typing error must end the worker with a sentence, or somebody watches a red page for an afternoon."""
    assert is_of_this_machine(trouble_of(tmp_path / "k2", **settings))


def test_a_damaged_local_catalog_is_not_waited_for(tmp_path: Path) -> None:
    """Only its owner can put it back."""
    (tmp_path / "catalog.db").write_bytes(b"damaged" * 1000)
    assert is_of_this_machine(trouble_of(tmp_path))


@pytest.mark.parametrize("scheme", ["postgresql+psycopg://k2:secret@", "http://"])
def test_a_service_that_refuses_connections_is_waited_for(tmp_path: Path, scheme: str) -> None:
    """It is not there yet; the sentence has its address and no password."""
    address = f"127.0.0.1:{free_port()}"
    trouble = trouble_of(tmp_path / "k2", catalog_uri=f"{scheme}{address}/x", commit_timeout_ms="1000")
    assert trouble.is_retriable
    assert not is_of_this_machine(trouble)
    assert address.partition(":")[2] in str(trouble)
    assert "secret" not in str(trouble)


def test_every_service_that_a_start_waits_for_is_named_without_its_password(tmp_path: Path) -> None:
    """The page and the log are read by people who need not know it."""
    app = create_app(
        Settings(
            home=tmp_path,
            broker="k2kafka://one:9092;k2kafka://two:9092",
            catalog_uri="postgresql://k2:secret@db:5432/lake?password=secret",
            warehouse="s3://bucket/prefix",
            s3_endpoint="http://minio:9000",
        )
    )
    app.on_boot("trades")(lambda _: None)
    log, tables = (step.waits_for for step in app.boot_steps())
    assert log == "the log at k2kafka://one:9092;k2kafka://two:9092"
    assert tables == "the tables: catalog postgresql://db:5432/lake, files in s3://bucket/prefix at http://minio:9000"
