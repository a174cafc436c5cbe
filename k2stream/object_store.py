"""How the tables' S3 is reached: the seam between settings, the lake that writes and the queries that read."""

from dataclasses import dataclass, field
from typing import Self

from k2stream.settings import Settings, process_environment

SCHEMES = ("s3://", "s3a://", "s3n://")
DEFAULT_REGION = "us-east-1"
"""Of a store that is not Amazon's: it has one region, and most call it so."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One S3 and who asks; what is empty, the client finds by itself."""

    endpoint: str = ""
    """`http://host:port`; empty: Amazon's."""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    is_path_style: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """By the settings, else by AWS's variables: endpoint and region each for itself, the keys together."""
        aws = process_environment()
        endpoint = settings.s3_endpoint or aws.get("AWS_ENDPOINT_URL_S3", "") or aws.get("AWS_ENDPOINT_URL", "")
        region = settings.s3_region or aws.get("AWS_REGION", "") or aws.get("AWS_DEFAULT_REGION", "") or (DEFAULT_REGION if endpoint else "")
        if settings.s3_access_key_id:
            keys = (settings.s3_access_key_id, settings.s3_secret_access_key.get_secret_value(), settings.s3_session_token.get_secret_value())
        else:
            keys = (aws.get("AWS_ACCESS_KEY_ID", ""), aws.get("AWS_SECRET_ACCESS_KEY", ""), aws.get("AWS_SESSION_TOKEN", ""))
        return cls(endpoint.rstrip("/"), region, *keys, is_path_style=settings.s3_path_style)


def object_store(settings: Settings) -> ObjectStore | None:
    """The store that the tables may lie in; None if they lie on a disk. Where a REST catalog puts them, nobody knows before."""
    return ObjectStore.of(settings) if is_object(settings.warehouse) or is_rest(settings.catalog_uri) else None


def is_object(location: str) -> bool:
    """True if a location lies in an object store."""
    return location.startswith(SCHEMES)


def is_rest(catalog_uri: str) -> bool:
    """True if a catalog speaks Iceberg's REST protocol."""
    return catalog_uri.startswith(("http://", "https://"))
