"""Which log the settings name."""

from yarl import URL

from k2stream.errors import SettingsError
from k2stream.settings import Settings
from k2stream.transport.embedded_path import folder_of
from k2stream.transport.embedded_sink import EmbeddedSink
from k2stream.transport.sink import LogSink


def open_sink(settings: Settings) -> LogSink:
    """A sink for `settings.broker_url()`; connects at its first use. SettingsError if the URL is of no known form, or a file cannot be used."""
    scheme = settings.broker_url().partition("://")[0]
    if scheme == "embedded":
        return EmbeddedSink(folder_of([URL(part) for part in settings.broker_url().replace(",", ";").split(";")]))
    if scheme == "k2kafka":
        from k2stream.transport.kafka_access import access_options  # a worker without Kafka does not pay for its client
        from k2stream.transport.kafka_sink import KafkaSink

        options = access_options(settings)
        return KafkaSink(",".join(options["bootstrap_servers"]), isolation_level=settings.isolation_level, auth=options)
    raise SettingsError(f"K2_BROKER: expected k2kafka://host:port or embedded:///absolute/path, found {settings.broker_url()!r}.")
