"""Addresses as they may be shown: stream keys and passwords stay with who typed them."""

from urllib.parse import urlsplit, urlunsplit

HIDDEN = "..."
KEYED = frozenset({"rtmp", "rtmps"})
"""Schemes whose last part is the key that lets anybody stream."""


def without_secrets(uri: str) -> str:
    """The address without user, password, query and stream key; what is no address is as it was."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    path = parts.path
    if parts.scheme.lower() in KEYED and path.count("/") > 1:
        path = f"{path.rpartition('/')[0]}/{HIDDEN}"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, path, HIDDEN if parts.query else "", ""))
