"""Which servers there are, by name."""

from k2stream.dev.iceberg_rest import IcebergRest
from k2stream.dev.kafka import Kafka
from k2stream.dev.postgres import Postgres
from k2stream.dev.redis import Redis
from k2stream.dev.registry import Registry
from k2stream.dev.s3 import S3
from k2stream.dev.service import Service

USUAL = ("kafka", "postgres", "s3", "registry", "redis")
"""What `k2 dev up` starts if nothing is named: one catalog, not two."""

SERVICES: dict[str, type[Service]] = {kind.name: kind for kind in (Kafka, Postgres, S3, IcebergRest, Registry, Redis)}
