"""What records add up to, whichever partitions they lie in: equal for two topics that hold the same records in the same order of each key."""

import struct

import xxhash

from k2stream.records import Record

_HEAD = struct.Struct("<qii")
_MODULUS = 1 << 128
NONE = -1


class Checksum:
    """Records are added in the order of their partition; 16 bytes a key are held."""

    def __init__(self) -> None:
        self.records = 0
        self._chains: dict[bytes, bytes] = {}
        self._keyless = 0

    def add(self, record: Record) -> None:
        """Count a record: its time, key, value and headers."""
        self.records += 1
        digest = digest_of(record)
        if record.key is None:  # nobody promises an order
            self._keyless = (self._keyless + int.from_bytes(digest)) % _MODULUS
        else:
            self._chains[record.key] = xxhash.xxh3_128_digest(self._chains.get(record.key, b"") + digest)

    def hexdigest(self) -> str:
        """Of everything so far."""
        chained = sum(int.from_bytes(xxhash.xxh3_128_digest(struct.pack("<q", len(key)) + key + chain)) for key, chain in self._chains.items())
        return f"{(chained + self._keyless) % _MODULUS:032x}"


def digest_of(record: Record) -> bytes:
    """16 bytes of all that a record carries, but where it lies."""
    parts = [_HEAD.pack(record.timestamp_ms, _length(record.key), _length(record.value)), record.key or b"", record.value or b""]
    for name, value in record.headers:
        encoded = name.encode()
        parts += [struct.pack("<ii", len(encoded), len(value)), encoded, value]
    return xxhash.xxh3_128_digest(b"".join(parts))


def _length(field: bytes | None) -> int:
    return NONE if field is None else len(field)
