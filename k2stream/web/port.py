"""The port of the worker's pages, looked at before it is bound."""

import errno
import socket

from k2stream.errors import SettingsError


def require_free(host: str, port: int) -> None:
    """Raises SettingsError, in one sentence, if `host` and `port` cannot be listened on right now. Port 0 always can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as exc:
            raise SettingsError(_sentence(host, port, exc)) from exc


def _sentence(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program, perhaps another worker. Stop it, or set K2_WEB_PORT to a free port."
    if exc.errno == errno.EACCES:
        return f"Port {port} of {host} is kept for root. Set K2_WEB_PORT to a port above 1023."
    return f"K2_WEB_HOST={host} cannot be listened on ({exc.strerror}). Use 127.0.0.1 or an address of this machine."
