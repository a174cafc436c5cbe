"""S3 for the tables' files: one client for equal access, writes in as few requests as they need."""

from collections.abc import Mapping
from functools import lru_cache

from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region
from pyiceberg.io import (
    S3_ACCESS_KEY_ID,
    S3_ENDPOINT,
    S3_FORCE_VIRTUAL_ADDRESSING,
    S3_REGION,
    S3_SECRET_ACCESS_KEY,
    S3_SESSION_TOKEN,
)

from k2stream.object_store import ObjectStore

CONNECT_SECONDS = 3.0
SILENCE_SECONDS = 20.0
"""A store that sends nothing for so long has failed the request."""

ATTEMPTS = 4
"""Of one request; between them pauses of 25 ms, doubled each time."""

CLIENTS = 16
"""More than one access at a time is a REST catalog that vends keys."""


def s3_properties(store: ObjectStore) -> dict[str, str]:
    """The store as PyIceberg's properties; keys that a REST catalog vends for a table take their place."""
    said = {
        S3_ENDPOINT: store.endpoint,
        S3_REGION: store.region,
        S3_ACCESS_KEY_ID: store.access_key_id,
        S3_SECRET_ACCESS_KEY: store.secret_access_key,
        S3_SESSION_TOKEN: store.session_token,
        S3_FORCE_VIRTUAL_ADDRESSING: "" if store.is_path_style else "true",
    }
    return {name: value for name, value in said.items() if value}


def s3_filesystem(properties: Mapping[str, str], bucket: str) -> S3FileSystem:
    """The client for these properties; without keys among them Arrow looks for AWS's own. Raises OSError."""
    region = properties.get(S3_REGION) or _region_of(bucket)
    keys = tuple(properties.get(name) for name in (S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN))
    return _client(properties.get(S3_ENDPOINT), region, keys, properties.get(S3_FORCE_VIRTUAL_ADDRESSING, "").lower() == "true")


@lru_cache(maxsize=CLIENTS)
def _region_of(bucket: str) -> str:
    return str(resolve_s3_region(bucket))


@lru_cache(maxsize=CLIENTS)
def _client(endpoint: str | None, region: str, keys: tuple[str | None, ...], is_virtual: bool) -> S3FileSystem:
    access_key, secret_key, session_token = keys
    return S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
        endpoint_override=endpoint,
        region=region,
        force_virtual_addressing=is_virtual,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENCE_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small file is one request instead of three
    )
