"""DuckDB's own S3 client: its httpfs extension, from the package of DuckDB's very version, so nothing is downloaded."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from k2stream.errors import AnswerFailed
from k2stream.object_store import ObjectStore

PACKAGE = "duckdb_extension_httpfs"

HTTP = {
    "enable_http_metadata_cache": "true",  # data files never change: their length is asked for once
    "httpfs_connection_caching": "true",
    "http_timeout": "20",
    "http_retries": "4",
}


def open_s3(connection: duckdb.DuckDBPyConnection, store: ObjectStore) -> None:
    """Let every cursor of `connection` read `s3://`; raises AnswerFailed if the extension cannot be had."""
    try:
        connection.execute(f"LOAD '{_extension()}'")
        for name, value in HTTP.items():
            connection.execute(f"SET GLOBAL {name} = '{value}'")
        connection.execute(_secret(store))
    except duckdb.Error as exc:
        raise AnswerFailed(f"DuckDB cannot read S3: {exc}") from exc


def _extension() -> Path:
    """Path of the extension for this DuckDB."""
    try:
        path = Path(str(files(PACKAGE))) / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    except ModuleNotFoundError:
        path = None
    if path is None or not path.exists():
        raise AnswerFailed(f"Tables on S3 need DuckDB's httpfs {duckdb.__version__}. `pip install 'k2stream[s3]'` brings DuckDB and httpfs of one version.")
    return path


def _secret(store: ObjectStore) -> str:
    """The statement that tells DuckDB who asks, and where; DuckDB shows none of it to a question."""
    endpoint = urlsplit(store.endpoint)
    said = {
        "KEY_ID": store.access_key_id,
        "SECRET": store.secret_access_key,
        "SESSION_TOKEN": store.session_token,
        "REGION": store.region,
        "ENDPOINT": endpoint.netloc,
        "URL_STYLE": "path" if store.endpoint and store.is_path_style else "",
        "USE_SSL": "false" if endpoint.scheme == "http" else "",
    }
    options = ", ".join(f"{name} '{_quoted(value)}'" for name, value in said.items() if value)
    return f"CREATE SECRET k2 (TYPE s3{', ' if options else ''}{options})"


def _quoted(text: str) -> str:
    return text.replace("'", "''")
