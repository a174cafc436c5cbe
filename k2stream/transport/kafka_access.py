"""Where the brokers are and what they want to be told before they serve anybody: the same for every client that we open."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from yarl import URL

from k2stream.errors import SettingsError
from k2stream.settings import Settings

KAFKA_SCHEME = "k2kafka"
KAFKA_PORT = 9092
CONNECT_MS = 3_000
"""A broker that takes longer to say hello is as good as away."""

E_FILE = "{setting}={path}: expected {expected}; {cause}. Correct the path, or make the file."
E_SILENT = "it does not answer; is it running, and is the address right?"
E_NOBODY = "nobody listens there ({cause}); is it running, and is the address right?"
E_UNTRUSTED = "its certificate is not trusted ({cause}); K2_BROKER_CA_FILE names the authority that is"
E_NOT_TLS = "there is no TLS with it ({cause}); is K2_BROKER_SECURITY_PROTOCOL={protocol} what this port speaks, and does it ask for a K2_BROKER_CERT_FILE?"
E_CLOSED = "it closed the connection; is K2_BROKER_SECURITY_PROTOCOL={protocol} what this port speaks, and does it ask for a K2_BROKER_CERT_FILE?"
E_REFUSED = "it refuses K2_BROKER_USERNAME={user} with this K2_BROKER_PASSWORD; correct them, or make the user"
E_MECHANISM = "it does not know K2_BROKER_SASL_MECHANISM={mechanism} ({cause})"


def servers_of(urls: Sequence[URL]) -> list[str]:
    """`host:port` of each URL, as aiokafka wants them; IPv6 addresses in brackets."""
    hosts = [(url.host or "127.0.0.1", url.port or KAFKA_PORT) for url in urls]
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts]


def urls_of(broker: str) -> list[URL]:
    """The URLs of K2_BROKER, which are separated by `;` or `,`; the scheme is the first one's."""
    first, *others = broker.replace(",", ";").split(";")
    scheme = URL(first).scheme
    return [URL(first), *(URL(part if "://" in part else f"{scheme}://{part}") for part in others if part)]


def access_options(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client is told of brokers and credentials; SettingsError if a file cannot be used."""
    return {"bootstrap_servers": servers_of(urls_of(settings.broker_url())), **security_options(settings)}


def security_options(settings: Settings) -> dict[str, Any]:
    """TLS and SASL; SettingsError if a file cannot be used. The password stands in it: it is for aiokafka alone."""
    protocol = settings.broker_security_protocol
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.broker_sasl_mechanism
        options["sasl_plain_username"] = settings.broker_username
        options["sasl_plain_password"] = settings.broker_password.get_secret_value()
    return options


def _tls(settings: Settings) -> ssl.SSLContext:
    ca, certificate, key = settings.broker_ca_file, settings.broker_cert_file, settings.broker_key_file
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as exc:  # ssl.SSLError is one too
        raise SettingsError(E_FILE.format(setting="K2_BROKER_CA_FILE", path=ca, expected="certificates in PEM", cause=exc)) from exc
    if certificate:
        try:
            context.load_cert_chain(certificate, key, password="")  # an encrypted key must not ask on a terminal
        except OSError as exc:
            paths, expected = f"{certificate} and K2_BROKER_KEY_FILE={key}", "a certificate and its key in PEM, without a passphrase"
            raise SettingsError(E_FILE.format(setting="K2_BROKER_CERT_FILE", path=paths, expected=expected, cause=exc)) from exc
    return context


async def why_away(options: Mapping[str, Any]) -> str:
    """Why no broker of `access_options` serves us, in a clause; aiokafka itself only says that none does.

    Empty if one answers by now. Knocks once at each and takes CONNECT_MS at most.
    """
    servers = list(options["bootstrap_servers"])
    causes = await asyncio.gather(*(_knock(server, options) for server in servers))
    if "" in causes:
        return ""
    return causes[0] if len(set(causes)) == 1 else " | ".join(f"{server}: {cause}" for server, cause in zip(servers, causes, strict=True))


async def _knock(server: str, options: Mapping[str, Any]) -> str:
    (host, port, _), told = collect_hosts(server)[0], {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        async with asyncio.timeout(CONNECT_MS / 1000):
            link = await create_conn(host, port, request_timeout_ms=CONNECT_MS, **told)
    except (OSError, KafkaError, TimeoutError) as exc:
        return _clause(exc, options)
    link.close()
    return ""


def _clause(exc: Exception, options: Mapping[str, Any]) -> str:
    """What a failed connection means; the most telling first, as one error is a kind of another."""
    protocol = options["security_protocol"]
    if isinstance(exc, TimeoutError):
        return E_SILENT
    if isinstance(exc, ssl.SSLCertVerificationError):
        return E_UNTRUSTED.format(cause=exc.verify_message or exc.reason)
    if isinstance(exc, ssl.SSLError):
        return E_NOT_TLS.format(cause=exc.reason or exc, protocol=protocol)
    if isinstance(exc, SaslAuthenticationFailed):
        return E_REFUSED.format(user=options["sasl_plain_username"])
    if isinstance(exc, UnsupportedSaslMechanismError):
        return E_MECHANISM.format(mechanism=options["sasl_mechanism"], cause=exc)
    if isinstance(exc, KafkaError | ConnectionResetError):
        return E_CLOSED.format(protocol=protocol)
    return E_NOBODY.format(cause=exc)
