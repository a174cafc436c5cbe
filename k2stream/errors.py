"""Every exception of k2stream.

K2Error
├── SettingsError            a setting is wrong; nothing was started
├── HomeError                K2_HOME cannot be used (locked, full, no permission, not ours)
├── TransportError
│   ├── LogLockedError       another worker of this group holds the embedded log
│   └── LogCorruptError      stored bytes do not match their checksum
├── DecodeError              a record's bytes are not what its schema says (a value on the hot path)
├── RegistryError
│   └── RegistryUnavailable  the registry did not answer; ask again
├── StateError               the state store failed; state is rebuilt from the tables
├── LakeError
│   ├── Fenced               the table's vector is not the window's start; partitions restart
│   ├── CommitUnknown        the deadline passed before the outcome was known
│   ├── Outraced             other writers were faster until the deadline; nothing is wrong
│   └── VectorMissing        history without a reachable vector; `k2 adopt`
├── FeedError                a source is not what was published of it before
│   └── FeedLost             a venue's connection ended or was refused; connect again
├── ServiceError             a server for development or tests does not start or stop
│   └── ServiceMissing       the machine lacks what it needs; `make services`
├── LoadError                a file cannot be loaded as its mapping says
├── MigrationError           a topic cannot be copied into another, or they are not equal
├── UnexplainedHole          offsets are missing and the log does not say why
└── QueryError               a question that cannot be answered as asked
    └── AnswerFailed         nothing is wrong with the question; files or memory failed
"""

from typing import ClassVar


class K2Error(Exception):
    """Base of all errors; the text says what, where and what to do."""

    is_retriable: ClassVar[bool] = False
    """True if doing the same again may succeed without anybody mending anything."""


class SettingsError(K2Error):
    """A setting is wrong; names the variable, what was expected and what was found."""


class HomeError(K2Error):
    """K2_HOME cannot be used as it is."""


class TransportError(K2Error):
    """The log could not be read or written."""

    is_retriable = True


class LogRefused(TransportError):
    """The log will not take these records, however often they are sent: too large, or of a time that it does not accept."""

    is_retriable = False


class LogLockedError(TransportError):
    """Another worker of this group holds the embedded log."""

    is_retriable = False


class LogCorruptError(TransportError):
    """Stored bytes do not match their checksum."""

    is_retriable = False


class DecodeError(K2Error):
    """A record's bytes are not what its schema says."""


class RegistryError(K2Error):
    """The registry answered that it cannot serve the question."""


class RegistryUnavailable(RegistryError):
    """The registry did not answer."""

    is_retriable = True


class StateError(K2Error):
    """The state store failed; state is rebuilt from the tables."""

    is_retriable = True


class LakeError(K2Error):
    """The table could not be read or written."""

    is_retriable = True


class Fenced(LakeError):
    """The table's vector is not the window's start: somebody else committed these partitions."""

    is_retriable = False


class CommitUnknown(LakeError):
    """The deadline passed before the catalog said whether the commit landed."""


class Outraced(LakeError):
    """Other writers of the table were faster, each time until the deadline: too many commits for one table, and nothing broken."""


class VectorMissing(LakeError):
    """The table has history but no reachable offset vector; `k2 adopt` makes one."""

    is_retriable = False


class FeedError(K2Error):
    """A source is not what was published of it before, or what was published cannot be written down."""


class FeedLost(FeedError):
    """A venue's connection ended, was refused, or was never made."""

    is_retriable = True

    def __init__(self, sentence: str, *, retry_after_seconds: float | None = None) -> None:
        """`retry_after_seconds` is how long the venue wants us to stay away; None if it did not say."""
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class ServiceError(K2Error):
    """A server for development or tests does not start or stop."""


class ServiceMissing(ServiceError):
    """The machine lacks what the server needs."""

    def __init__(self, name: str, lacks: str) -> None:
        super().__init__(f"{name} needs {lacks}, which is not on this machine. `make services S={name}` mends it.")
        self.name, self.lacks = name, lacks


class LoadError(K2Error):
    """A file cannot be loaded as its mapping says; what was published before stays, and the next run goes on from there."""


class MigrationError(K2Error):
    """A topic cannot be copied into another, or they are not equal afterwards."""


class UnexplainedHole(K2Error):
    """Offsets are missing and the log does not say why."""


class QueryError(K2Error):
    """A question that cannot be answered as asked."""


class AnswerFailed(QueryError):
    """The engine could not answer: its files are away or were removed meanwhile, or memory is not enough."""
