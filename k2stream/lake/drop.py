"""Throwaway tables taken away again, with everything that lies where they lay; for tables that nobody else may need."""

import shutil
from collections.abc import Sequence
from contextlib import closing, suppress

from pyarrow.fs import FileSelector
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from k2stream.lake.catalog import open_catalog
from k2stream.lake.file_io import local_path
from k2stream.lake.s3 import s3_filesystem, s3_properties
from k2stream.lake.trouble import translated
from k2stream.object_store import ObjectStore, is_object
from k2stream.settings import Settings


def drop_tables(settings: Settings, names: Sequence[str]) -> None:
    """Drop these tables of the settings' namespace, their files and the namespace itself; what is missing is no error. Raises LakeError."""
    with closing(open_catalog(settings)) as catalog, translated("drop the tables", settings.namespace):
        for name in names:
            with suppress(NoSuchTableError):
                location = catalog.load_table((settings.namespace, name)).location()
                catalog.drop_table((settings.namespace, name))
                remove_files(settings, location)
        with suppress(NoSuchNamespaceError):
            catalog.drop_namespace(settings.namespace)


def remove_files(settings: Settings, location: str) -> None:
    """Everything under a table's location; nothing where it is of a kind that we do not know."""
    folder = local_path(location)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    elif is_object(location):
        path = location.split("://", 1)[1]
        store = s3_filesystem(s3_properties(ObjectStore.of(settings)), path.partition("/")[0])
        for file in store.get_file_info(FileSelector(path, allow_not_found=True, recursive=True)):
            if file.is_file:
                store.delete_file(file.path)
