"""Kafka's topics described, grown, configured and deleted, as questions to one aiokafka client.

Each is harmless when repeated. Settings are changed one by one (IncrementalAlterConfigs, Kafka 2.3 and later): the older request, the only
one that aiokafka has, resets every setting that it does not name.
"""

from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import InvalidPartitionsError, NodeNotReadyError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from k2stream.transport.sink import TopicState

TOPIC = 2
"""Kafka's number for a topic among the resources that have settings."""
SET = 0


class _IncrementalAlterConfigsResponse(Response):  # type: ignore[misc] # aiokafka ships no types that mypy follows
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("resources", Array(("error_code", Int16), ("error_message", String("utf-8")), ("resource_type", Int8), ("resource_name", String("utf-8")))),
    )


class _IncrementalAlterConfigsRequestV0(RequestStruct):  # type: ignore[misc] # as above
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("configs", Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8")))),
            ),
        ),
        ("validate_only", Boolean),
    )


class _IncrementalAlterConfigs(Request[_IncrementalAlterConfigsRequestV0]):  # type: ignore[misc] # as above
    API_KEY = 44

    def __init__(self, topic: str, config: Mapping[str, str]) -> None:
        self._resources = [(TOPIC, topic, [(name, SET, value) for name, value in config.items()])]

    def build(self, request_struct_class: type[_IncrementalAlterConfigsRequestV0]) -> _IncrementalAlterConfigsRequestV0:
        return request_struct_class(self._resources, False)


async def describe_topics(client: AIOKafkaClient) -> dict[str, TopicState]:
    """Every topic but Kafka's own."""
    metadata = await client.fetch_all_metadata()
    names = sorted(metadata.topics(exclude_internal_topics=True))
    configs = await _configs(client, names) if names else {}
    return {name: TopicState(len(metadata.partitions_for_topic(name) or ()), configs[name]) for name in names if name in configs}


async def grow(client: AIOKafkaClient, topic: str, partitions: int, *, timeout_ms: int) -> None:
    """More partitions; one that has as many or more is left as it is."""
    answer = await client.send(await _controller(client), CreatePartitionsRequest([(topic, (partitions, None))], timeout_ms, False))
    _, code, text = answer.topic_errors[0]
    if code == InvalidPartitionsError.errno and (await describe_topics(client))[topic].partitions >= partitions:
        return
    _raise(code, text)


async def configure(client: AIOKafkaClient, topic: str, config: Mapping[str, str]) -> None:
    """Set some of a topic's settings."""
    answer = await client.send(await _controller(client), _IncrementalAlterConfigs(topic, config))
    code, text, *_ = answer.resources[0]
    _raise(code, text)


async def delete_topic(client: AIOKafkaClient, topic: str, *, timeout_ms: int) -> None:
    """Delete a topic; one that is gone is no error."""
    answer = await client.send(await _controller(client), DeleteTopicsRequest([topic], timeout_ms))
    _, code = answer.topic_error_codes[0]
    if code != UnknownTopicOrPartitionError.errno:
        _raise(code, topic)


async def _configs(client: AIOKafkaClient, topics: list[str]) -> dict[str, dict[str, str]]:
    """A topic that vanished meanwhile is left out."""
    answer = await client.send(await _controller(client), DescribeConfigsRequest([(TOPIC, topic, None) for topic in topics], False))
    found: dict[str, dict[str, str]] = {}
    for code, text, _, name, entries in answer.resources:
        if code != UnknownTopicOrPartitionError.errno:
            _raise(code, text)
            found[name] = {entry[0]: entry[1] or "" for entry in entries}
    return found


async def _controller(client: AIOKafkaClient) -> int:
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError
    return int((await client.send(node, MetadataRequest([]))).controller_id)


def _raise(code: int, text: Any) -> None:
    if code:
        raise for_code(code)(text)
