"""Faust as its manual shows it: one event at a time, decoded by fastavro, on the same embedded log, without any sink. Prints JSON.

    python -m tests.bench.plain_faust HOME ROWS

The rate is from the first event to the last; Faust's start is not in it.
"""

import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastavro
import faust

from k2stream.rows import avro_schema
from k2stream.worker_process import free_port
from tests.bench.market import SCHEMA, TOPIC

FRAME_BYTES = 5


def app_of(home: Path, rows: int, folder: str) -> faust.App:
    """An app that reads `rows` trades, prints its figures and ends the process."""
    app = faust.App(
        "plain",
        broker=f"embedded://{home.absolute()}/log",
        store="memory://",
        autodiscover=False,
        datadir=folder,
        web_bind="127.0.0.1",
        web_port=free_port(),
        stream_wait_empty=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    schema = fastavro.parse_schema(avro_schema(SCHEMA))
    topic = app.topic(TOPIC, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(topic)
    async def trades(stream: Any) -> None:
        done, started, cpu_started = 0, 0.0, 0.0
        async for value in stream:
            if not done:
                started, cpu_started = time.perf_counter(), time.process_time()
            fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema)
            done += 1
            if done == rows:
                figures = {"rows": rows, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_started}
                os.write(1, json.dumps(figures).encode() + b"\n")  # Faust has taken sys.stdout for its log
                os._exit(0)  # a stop of Faust's own takes seconds and proves nothing here

    return app


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        faust.Worker(app_of(Path(arguments[0]), int(arguments[1]), folder), loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1:])
