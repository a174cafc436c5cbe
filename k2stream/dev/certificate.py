"""A certificate for 127.0.0.1 and the authority that signed it, made by openssl: TLS for tests and developers, trusted by nobody else."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from k2stream.errors import ServiceError, ServiceMissing

DAYS = "30"
NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files."""

    authority: Path
    """What clients are to trust."""
    certificate: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """A new authority and a certificate by it, in `folder`; raises ServiceError where there is no openssl."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority_key, request = folder / "ca.key", folder / "server.csr"
    new = ["-newkey", "rsa:2048", "-nodes"]
    _openssl("req", "-x509", *new, "-days", DAYS, "-subj", "/CN=k2stream test authority", "-keyout", authority_key, "-out", made.authority)
    _openssl("req", *new, "-subj", "/CN=localhost", "-addext", NAMES, "-keyout", made.key, "-out", request)
    signed_by: list[str | Path] = ["-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial", "-copy_extensions", "copy"]
    _openssl("x509", "-req", "-in", request, *signed_by, "-days", DAYS, "-out", made.certificate)
    return made


def _openssl(*arguments: str | Path) -> None:
    try:
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)  # noqa: S603, S607 # constant arguments, our own paths
    except FileNotFoundError as exc:
        raise ServiceMissing("tls", "openssl") from exc
    if done.returncode:
        raise ServiceError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
