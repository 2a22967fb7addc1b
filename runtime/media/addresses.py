"""Addresses as they may be shown: without stream keys and passwords."""

from urllib.parse import urlsplit, urlunsplit

HIDDEN = "..."
KEYED = frozenset({"rtmp", "rtmps"})
"""Schemes whose last path segment is the secret stream key."""


def without_secrets(uri: str) -> str:
    """Returns the address without user, password, query and stream key; text that is no address is
    unchanged."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    path = parts.path
    if parts.scheme.lower() in KEYED and path.count("/") > 1:
        path = f"{path.rpartition('/')[0]}/{HIDDEN}"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, path, HIDDEN if parts.query else "", ""))
