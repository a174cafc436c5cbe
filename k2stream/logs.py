"""Logs as events with fields, on standard error: for people on a terminal, JSON lines for machines."""

import logging
import sys

import structlog

from k2stream.settings import Settings

THIRD_PARTY_LEVEL = logging.WARNING


def set_up_logs(settings: Settings) -> None:
    """Configure structlog for this process; calling it again changes the settings."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer = structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    for name in ("pyiceberg", "redis"):
        logging.getLogger(name).setLevel(max(level, THIRD_PARTY_LEVEL))
    # An error line for each attempt to reach a broker that is away; the worker itself says what it waits for.
    logging.getLogger("aiokafka").setLevel(logging.WARNING if level <= logging.DEBUG else logging.CRITICAL)


def log_to_stderr() -> None:
    """Before settings are known: what a command prints stays free of log lines, and of what only debugging needs."""
    quiet = structlog.make_filtering_bound_logger(logging.INFO)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr), wrapper_class=quiet)


def say_last(sentence: str) -> None:
    """The reason of an end as the last line on stderr, below all that Faust logs while it stops."""
    sys.stderr.write(f"k2: {sentence}\n")
