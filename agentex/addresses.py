"""What an address may look like, for settings."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_base_url(value: str) -> bool:
    """Whether paths can be put behind it: http or https, a host, no credentials, query or fragment."""
    try:
        parts = urlsplit(value)
        has_address = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    is_plain = value.isascii() and value.isprintable() and not any(c in value for c in ' ?#\\"<>')
    return parts.scheme in {"http", "https"} and has_address and is_plain


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on this host; an empty one is all of its addresses."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_private_way(url: str) -> bool:
    """Whether nobody on the way reads along: https, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
