"""Which log the settings name."""

from yarl import URL

from k2stream.errors import SettingsError
from k2stream.settings import Settings
from k2stream.transport.embedded_path import folder_of
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import LogSink

KAFKA_PORT = 9092


def open_sink(settings: Settings) -> LogSink:
    """A sink for `settings.broker_url()`; connects at its first use. SettingsError if the URL is of no known form."""
    urls = [URL(part) for part in settings.broker_url().replace(",", ";").split(";")]
    if urls[0].scheme == "embedded":
        return EmbeddedSink(folder_of(urls))
    if urls[0].scheme == "k2kafka":
        from k2stream.transport.kafka_sink import KafkaSink  # a worker without Kafka does not pay for its client

        bootstrap = ",".join(f"{url.host}:{url.port or KAFKA_PORT}" for url in urls)
        return KafkaSink(bootstrap, isolation_level=settings.isolation_level)
    raise SettingsError(f"K2_BROKER: expected k2kafka://host:port or embedded:///absolute/path, found {settings.broker_url()!r}.")
