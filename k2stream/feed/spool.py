"""What was received and is not durable in the log yet: in memory, beyond that on disk, beyond that the sockets are not read.

First in, first out, across both. What lies on disk when a feed dies is published by the next one; records may come twice, never none.
"""

import asyncio
import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from errno import ENOSPC
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Literal

import msgpack
import structlog

from k2stream.errors import FeedError
from k2stream.private_file import make_private_file
from k2stream.transport.sink import Outgoing

log = structlog.get_logger(__name__)

HEAD = struct.Struct(">I")
PACKED_BYTES = 1024
"""What most records fit; msgpack takes and gives back a quarter of a megabyte otherwise, for each record."""

Where = Literal["memory", "disk", "nowhere"]
"""Where the next record would go; nowhere: reading stands still."""


class Spool:
    """A queue of records with a bound in memory and one on disk. One writer, one reader, on one loop."""

    def __init__(self, path: Path, *, memory_bytes: int, disk_bytes: int) -> None:
        """Records that an earlier feed left in `path` come first. Raises FeedError if it cannot be used, or another feed uses it."""
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._memory: deque[Outgoing] = deque()
        self._held_bytes = 0
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self.where: Where = "memory"
        self.dropped_records = 0
        """Records that the log has taken since this spool was opened."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private_file(path)
            self._file = path.open("r+b", buffering=0)
            flock(self._file.fileno(), LOCK_EX | LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            raise FeedError(f"{path} is in use: another feed of this venue runs here. Give this one a name of its own (K2_FEED_NAME).") from exc
        except OSError as exc:
            raise FeedError(f"{path} cannot be opened ({exc.strerror}). It holds what the log has not taken yet; mend the folder.") from exc
        self._path, self._read_at, self._write_at = path, 0, _whole_bytes(self._file.fileno())
        self.end_records = sum(1 for _ in self._on_disk())
        """The value of `dropped_records` at which everything that was put so far is in the log."""
        if self._write_at:
            log.info("spool.found", path=str(path), size_bytes=self._write_at)

    def __len__(self) -> int:
        """Bytes that wait."""
        return self._held_bytes + self._write_at - self._read_at

    async def put(self, records: Sequence[Outgoing]) -> None:
        """Take records; waits while both bounds are reached, and takes them nevertheless when it is cancelled meanwhile. Raises FeedError."""
        try:
            await self.room()
        finally:
            self.add(records)

    async def room(self) -> None:
        """Waits while both bounds are reached."""
        while not self._is_room():
            self._say("nowhere")
            self._emptied.clear()
            await self._emptied.wait()

    def add(self, records: Sequence[Outgoing]) -> None:
        """Take records at once, beyond the bounds if it must be. Raises FeedError if the disk takes no more; some may be taken by then."""
        for record in records:
            self._add(record)
            self.end_records += 1
            self._filled.set()

    async def peek(self, count: int) -> list[Outgoing]:
        """The next records, at most `count`, at least one: waits for it. They stay until `drop`."""
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        if self._memory:  # filled before the file was begun, so it is older
            return [self._memory[i] for i in range(min(count, len(self._memory)))]
        return [record for record, _ in self._on_disk(count)]

    def drop(self, count: int) -> None:
        """The first `count` records, as peeked last, are durable in the log."""
        if self._memory:
            for _ in range(count):
                self._held_bytes -= self._memory.popleft().size_bytes
        else:
            for _, after in self._on_disk(count):
                self._read_at = after
            self._start_over_if_read()
        self.dropped_records += count
        if not len(self):
            self._say("memory")
        self._emptied.set()

    def close(self) -> None:
        """What waits goes to disk, for the next feed. Raises FeedError if the disk takes it not; what was on it stays."""
        try:
            if self._memory:
                self._write_out()
        except OSError as exc:
            lost = f"{len(self._memory):,} records that the log had not taken are lost"
            raise FeedError(f"{self._path} cannot be written ({exc.strerror}): {lost}. Make room and start the feed again.") from exc
        finally:
            self._file.close()

    def _write_out(self) -> None:
        aside = self._path.with_suffix(".new")
        make_private_file(aside)
        with aside.open("r+b") as file:
            file.truncate()
            file.writelines(_packed(record) for record in self._memory)
            file.writelines(_packed(record) for record, _ in self._on_disk())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)

    def _on_disk(self, count: int | None = None) -> Iterator[tuple[Outgoing, int]]:
        """Records of the file from the first that waits, each with the place after it."""
        at, left = self._read_at, count
        while at < self._write_at and left != 0:
            (size,) = HEAD.unpack(os.pread(self._file.fileno(), HEAD.size, at))
            key, value, timestamp_ms, headers = msgpack.unpackb(os.pread(self._file.fileno(), size, at + HEAD.size))
            at += HEAD.size + size
            left = None if left is None else left - 1
            yield Outgoing(key, value, timestamp_ms, tuple((name, content) for name, content in headers)), at

    def _is_room(self) -> bool:
        if self._read_at == self._write_at and self._held_bytes < self._memory_bytes:
            return True
        return self._write_at < self._disk_bytes

    def _add(self, record: Outgoing) -> None:
        if self._read_at == self._write_at and self._held_bytes < self._memory_bytes:
            self._memory.append(record)
            self._held_bytes += record.size_bytes
            return
        self._say("disk")
        self._append(record)

    def _append(self, record: Outgoing) -> None:
        packed = _packed(record)
        try:
            if os.pwrite(self._file.fileno(), packed, self._write_at) < len(packed):  # the disk's last bytes; half a record is none
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        except OSError as exc:
            raise FeedError(f"{self._path} cannot be written ({exc.strerror}), and memory is full. Make room and start the feed again.") from exc
        self._write_at += len(packed)

    def _start_over_if_read(self) -> None:
        if self._read_at == self._write_at:
            self._file.truncate(0)
            self._read_at = self._write_at = 0

    def _say(self, where: Where) -> None:
        if where != self.where:
            self.where = where
            say = log.info if where == "memory" else log.warning
            say("spool.moved", to=where, waiting_bytes=len(self), then="the sockets are not read" if where == "nowhere" else "nothing is lost")


def _packed(record: Outgoing) -> bytes:
    body: bytes = msgpack.packb((record.key, record.value, record.timestamp_ms, record.headers), buf_size=PACKED_BYTES)
    return HEAD.pack(len(body)) + body


def _whole_bytes(descriptor: int) -> int:
    """Bytes of whole records: a feed that died while writing leaves half of one at the end, which the log never acknowledged."""
    end, at = os.fstat(descriptor).st_size, 0
    while at + HEAD.size <= end:
        (size,) = HEAD.unpack(os.pread(descriptor, HEAD.size, at))
        if at + HEAD.size + size > end:
            break
        at += HEAD.size + size
    return at
