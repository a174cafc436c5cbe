"""The Iceberg catalog `k2` and the tables in it."""

from contextlib import suppress
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    ServerError,
    TableAlreadyExistsError,
)
from pyiceberg.io import PY_IO_IMPL
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, Transform
from pyiceberg.types import NestedField
from sqlalchemy.exc import IntegrityError

from k2stream.lake.declaration import TableDeclaration
from k2stream.lake.file_io import FSYNC
from k2stream.lake.letters_before import LETTER_TABLE, LETTERS_BEFORE, letters_in_ledgers
from k2stream.lake.rest_catalog import TimedRestCatalog, rest_properties
from k2stream.lake.s3 import s3_properties
from k2stream.lake.sql_catalog import open_sql_catalog
from k2stream.lake.trouble import translated
from k2stream.object_store import ObjectStore, is_rest
from k2stream.settings import Settings

NAME = "k2"

RACES = 3
MADE_BY_ANOTHER = (NamespaceAlreadyExistsError, TableAlreadyExistsError, CommitFailedException, IntegrityError, ServerError)
"""What catalogs say when two processes make the same thing at once; Iceberg's own REST server says 500."""

TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # PyIceberg's own retry re-appends onto a new head without any check; ours look first. For others on our tables:
    "commit.retry.num-retries": "0",
    # Commit time stays flat only if what a commit reads and writes does: a bounded log of metadata files,
    # and manifests merged when 16 have piled up, into ones of at most 1 MB (about 1,000 data files, 0.1 s to rewrite).
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "16",
    "commit.manifest.target-size-bytes": str(1 << 20),
    "write.metadata.metrics.default": "none",
}


def open_catalog(settings: Settings) -> Catalog:
    """The catalog that settings name; raises LakeError if it cannot be opened, within seconds if nobody answers there."""
    uri = settings.catalog_uri or f"sqlite:///{settings.home_path('catalog.db')}"
    files, store = _file_access(settings), s3_properties(ObjectStore.of(settings))
    with translated("open the Iceberg catalog", uri):
        if is_rest(uri):
            seconds = settings.catalog_timeout_ms / 1000
            return TimedRestCatalog(NAME, seconds=seconds, own=files, **rest_properties(settings, uri), **store)
        warehouse = settings.warehouse or str(settings.home_path("warehouse"))
        return open_sql_catalog(NAME, settings, uri, {"warehouse": warehouse, **files, **store})


def _file_access(settings: Settings) -> dict[str, str]:
    """Properties that make files durable, whoever names their places."""
    return {PY_IO_IMPL: "k2stream.lake.file_io.DurableFileIO", FSYNC: str(settings.fsync).lower()}


def load_table(catalog: Catalog, settings: Settings, name: str) -> Table:
    """A table that exists; raises LakeError if it does not."""
    with translated("read the table", f"{settings.namespace}.{name}"):
        return catalog.load_table((settings.namespace, name))


def open_table(catalog: Catalog, settings: Settings, declaration: TableDeclaration) -> Table:
    """The declared table, made where it is missing; safe if several processes do so at once."""
    name = (settings.namespace, declaration.name)
    with translated("open or make the table", ".".join(name)):
        for _ in range(RACES):
            with suppress(NoSuchTableError):
                return catalog.load_table(name)
            with suppress(*MADE_BY_ANOTHER):
                catalog.create_namespace(settings.namespace)
            with suppress(*MADE_BY_ANOTHER, NoSuchNamespaceError):
                return _create(catalog, name, declaration)
        return catalog.load_table(name)


def _create(catalog: Catalog, name: tuple[str, str], declaration: TableDeclaration) -> Table:
    # The catalog gives out new field ids; they are 1, 2, 3... in the order of the columns, so these ids hold.
    schema = catalog._convert_schema_if_needed(declaration.schema)  # noqa: SLF001 - the only way to ids before the table
    with_ids = assign_fresh_schema_ids(schema)
    before = {LETTERS_BEFORE: str(letters_in_ledgers(catalog, name[0]))} if name[1] == LETTER_TABLE else {}
    return catalog.create_table(
        name,
        with_ids,
        partition_spec=_partition_spec(with_ids, declaration),
        sort_order=_sort_order(with_ids, declaration),
        properties={**TABLE_PROPERTIES, **_metrics(declaration), **before},
    )


def _partition_spec(schema: Schema, declaration: TableDeclaration) -> PartitionSpec:
    fields: list[tuple[NestedField, Transform[Any, Any], str]] = []
    if declaration.day_of is not None:
        source = schema.find_field(declaration.day_of)
        fields.append((source, DayTransform(), f"{source.name}_day"))
    fields += [(schema.find_field(name), IdentityTransform(), name) for name in declaration.partition_by]
    if declaration.buckets is not None:
        source, count = schema.find_field(declaration.buckets[0]), declaration.buckets[1]
        fields.append((source, BucketTransform(count), f"{source.name}_bucket"))
    return PartitionSpec(
        *(
            PartitionField(source_id=source.field_id, field_id=PARTITION_FIELD_ID_START + i, transform=transform, name=name)
            for i, (source, transform, name) in enumerate(fields)
        )
    )


def _sort_order(schema: Schema, declaration: TableDeclaration) -> SortOrder:
    return SortOrder(*(SortField(source_id=schema.find_field(n).field_id, transform=IdentityTransform()) for n in declaration.sort_by))


def _metrics(declaration: TableDeclaration) -> dict[str, str]:
    """Exact bounds for the columns that queries and look-ups prune by: 16 characters would not tell two topics apart."""
    return {f"write.metadata.metrics.column.{name}": "full" for name in declaration.bounds}
