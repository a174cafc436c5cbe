"""What our aiokafka consumer is told: Faust's configuration for its timeouts, ours for all that decides what is read and who may."""

from collections.abc import Sequence
from typing import Any

from yarl import URL

from k2stream.settings import Settings
from k2stream.transport.kafka_access import security_options, servers_of

FETCH_WAIT_MS = 250
"""A broker holds an empty fetch so long: partitions that were sought meanwhile wait for its answer."""
MIN_PARTITION_BYTES = 1 << 16
PARTITION_SHARE = 8
"""One fetch of one partition takes at most this part of the budget, so that a round passes it by little."""
REQUEST_MS = 20_000
"""A machine that vanished closes no connection: only this finds out. Joining a group takes as long as a rebalance, so never less than that."""
NEVER_MS = (1 << 31) - 1


def consumer_options(conf: Any, settings: Settings, urls: Sequence[URL], assignor: object) -> dict[str, Any]:
    """Arguments of AIOKafkaConsumer for a worker; `conf` is the Faust app's configuration."""
    partition_bytes = max(MIN_PARTITION_BYTES, settings.fetch_buffer_bytes // PARTITION_SHARE)
    rebalance_ms = max(settings.session_timeout_ms, 2 * settings.revoke_timeout_ms)
    return {
        "bootstrap_servers": servers_of(urls),
        "client_id": conf.broker_client_id,
        "group_id": conf.id,
        "group_instance_id": conf.consumer_group_instance_id,
        "partition_assignment_strategy": [assignor],
        "isolation_level": settings.isolation_level,
        "auto_offset_reset": "none",  # a reader whom retention has passed must stop, not be moved on
        "enable_auto_commit": False,
        "check_crcs": True,
        "max_poll_records": None,
        "max_partition_fetch_bytes": min(conf.consumer_max_fetch_size, partition_bytes),
        "fetch_max_bytes": settings.fetch_buffer_bytes,
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
        "rebalance_timeout_ms": rebalance_ms,
        "max_poll_interval_ms": NEVER_MS,  # a full budget stops the fetching for as long as the lake is away
        "request_timeout_ms": max(REQUEST_MS, 2 * rebalance_ms),
        "metadata_max_age_ms": min(conf.consumer_metadata_max_age_ms, settings.topic_refresh_ms),
        "connections_max_idle_ms": conf.consumer_connections_max_idle_ms,
        **security_options(settings),
    }
