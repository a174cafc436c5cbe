"""Addresses of services as people may see them: without what is a secret."""

import re

_USER = re.compile(r"(?<=://)[^/?#]*@")
_QUERY = re.compile(r"\?[^;,\s]*")


def without_password(url: str) -> str:
    """A URL, or a list of them, without user, password and query, where passwords also stand. Never raises."""
    return _QUERY.sub("", _USER.sub("", url))
