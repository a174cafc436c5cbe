"""A dead letter as it lies in its topic: where the record came from, its bytes as they came, and why it made no row.

The value is JSON so that any tool can read it; bytes are base64 (standard alphabet) or null.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from k2stream.errors import DecodeError
from k2stream.records import Headers
from k2stream.verdict import Reason, Reject

FORMAT = 1
FIRST_ORIGIN_HEADER, ATTEMPT_HEADER = "k2-first-origin", "k2-attempt"
"""Headers of a replayed record: the origin of its first letter, and how many letters it has had."""
FILE_HEADER, LINE_HEADER = "k2-file", "k2-line"
"""Headers of a letter whose record is a line of a file."""
FILE_PREFIX = "file:"
TEXT_CHARACTERS = 2_000
"""Of a sentence that names what was found, which may be anything."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record that could not become a row."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """The record's own: when the letter's cause was first seen."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: Reason
    text: str
    schema_id: int | None
    first_origin: str
    """`topic/partition/offset` of the record's first letter; its own unless it was replayed."""
    attempt: int
    """1 for the first letter of a record."""
    file: str | None = None
    """File of a record that was to be loaded into `topic` and never got there: `offset` is its line, from 1; `partition` is -1."""

    @property
    def origin(self) -> str:
        """Key of the letter: writing one twice is harmless, for letters are counted by distinct key."""
        return origin_of(self.topic, self.partition, self.offset) if self.file is None else origin_of_line(self.topic, self.file, self.offset)


def origin_of(topic: str, partition: int, offset: int) -> str:
    return f"{topic}/{partition}/{offset}"


def origin_of_line(topic: str, file: str, line: int) -> str:
    """Key of a letter whose record is a line of a file: `topic/file:NAME/LINE`, the name quoted as in a URL."""
    return f"{topic}/{FILE_PREFIX}{quote(file, safe='')}/{line}"


def is_line(origin: str) -> bool:
    """True for a record that came from a file and has no offset in any log."""
    return origin.rpartition("/")[0].rpartition("/")[2].startswith(FILE_PREFIX)


def parse_origin(origin: str) -> tuple[str, int, int]:
    """Topic, partition and offset of a letter's key; raises DecodeError if it is none."""
    try:
        topic, partition, offset = origin.rsplit("/", 2)
        return topic, int(partition), int(offset)
    except ValueError as exc:
        raise DecodeError(f"A dead letter's key: expected TOPIC/PARTITION/OFFSET, found {origin!r}.") from exc


def letter_of_line(topic: str, file: str, line: int, *, timestamp_ms: int, value: bytes, reason: Reason, text: str) -> Letter:
    """The letter of a line that could not be published into `topic`; `value` is the line as it stands in the file, without its end.

    It has no offset in any log, so nothing replays it: mend the file and load it again.
    """
    headers = ((FILE_HEADER, file.encode()), (LINE_HEADER, str(line).encode()))
    origin = origin_of_line(topic, file, line)
    return Letter(topic, -1, line, timestamp_ms, None, value, headers, reason, text, None, origin, 1, file)


def letter_of(reject: Reject) -> Letter:
    """The letter of a rejected record; a replayed record's headers say which attempt this was."""
    headers = dict(reject.headers)
    own = origin_of(reject.topic, reject.partition, reject.offset)
    first_origin = headers.get(FIRST_ORIGIN_HEADER, b"").decode(errors="replace") or own
    attempt = headers.get(ATTEMPT_HEADER, b"0")
    return Letter(
        reject.topic,
        reject.partition,
        reject.offset,
        reject.timestamp_ms,
        reject.key,
        reject.value,
        reject.headers,
        reject.reason,
        reject.text[:TEXT_CHARACTERS],
        reject.schema_id,
        first_origin,
        (int(attempt) if attempt.isdigit() and len(attempt) < 10 else 0) + 1,
    )


def encode_letter(letter: Letter, *, is_whole: bool = True) -> bytes:
    """The value of the letter's record; unless `is_whole` it says how many bytes of value the record had, and has neither key, value nor headers."""
    own = _record_of(letter) if is_whole else {"key": None, "value": None, "headers": [], "value_bytes": len(letter.value or b"")}
    return orjson.dumps(
        {
            "format": FORMAT,
            "origin": {
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "timestamp_ms": letter.timestamp_ms,
                **({} if letter.file is None else {"file": letter.file}),
            },
            "reason": letter.reason.value,
            "text": letter.text.encode(errors="replace").decode(),
            "schema_id": letter.schema_id,
            "attempt": letter.attempt,
            "first_origin": letter.first_origin,
            **own,
        }
    )


def _record_of(letter: Letter) -> dict[str, Any]:  # JSON
    return {
        "key": _packed(letter.key),
        "value": _packed(letter.value),
        "headers": [[_safe(name), _packed(value)] for name, value in letter.headers],
    }


def decode_letter(value: bytes) -> Letter:
    """The letter that `encode_letter` wrote; raises DecodeError if it is something else."""
    try:
        found: dict[str, Any] = orjson.loads(value)  # JSON
        if found["format"] != FORMAT:
            raise DecodeError(f"A dead letter has format {found['format']}, this k2stream reads {FORMAT}. Read it with a newer one.")
        origin = found["origin"]
        return Letter(
            origin["topic"],
            origin["partition"],
            origin["offset"],
            origin["timestamp_ms"],
            _unpacked(found["key"]),
            _unpacked(found["value"]),
            tuple((name, _unpacked(v) or b"") for name, v in found["headers"]),
            Reason(found["reason"]),
            found["text"],
            found["schema_id"],
            found["first_origin"],
            found["attempt"],
            origin.get("file"),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise DecodeError(f"Not a dead letter of k2stream: {exc!r}. It was written by somebody else; leave it or delete it.") from exc


def _packed(raw: bytes | None) -> str | None:
    return None if raw is None else b64encode(raw).decode("ascii")


def _unpacked(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)


def _safe(name: str) -> str:
    return name.encode(errors="replace").decode()
