"""k2stream: market data captured exactly once, from exchange to Apache Iceberg."""

__version__ = "0.1.0"
