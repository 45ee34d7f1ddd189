"""TLS in AGENTEX_DATABASE_URL, in libpq's words, so that psql, pg_dump and agentex take the same URL.

    postgresql://agentex@db.example.com/agentex?sslmode=verify-full&sslrootcert=/etc/agentex/ca.pem

asyncpg knows these words in a DSN only, and SQLAlchemy passes each parameter of a URL as an argument: so they
are taken out of the URL and go to asyncpg as a DSN of their own. asyncpg's own `ssl=MODE` works as well.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlencode

# postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_WORDS = (
    "sslmode",
    *_FILES,
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)


class SslMode(StrEnum):
    """How much TLS is asked for, from the least on."""

    DISABLE = "disable"
    ALLOW = "allow"
    # TLS where the server offers it, and nothing is looked at: what there is without a word.
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


_MODES = tuple(SslMode)


def split(url: str) -> tuple[str, dict[str, str]]:
    """The URL without libpq's words for TLS, and these; as it is when it is no URL."""
    if "ssl" not in url:
        return url, {}
    # Here, for the command line reads settings without a database.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return url, {}
    given = {word: value for word in _WORDS if isinstance(value := parsed.query.get(word), str)}
    return parsed.difference_update_query(given).render_as_string(hide_password=False), given


def connect_arguments(words: Mapping[str, str]) -> dict[str, str]:
    """What asyncpg.connect takes of them; its other arguments count before the DSN."""
    return {"dsn": f"postgresql://?{urlencode(words)}"} if words else {}


def mode(url: str) -> SslMode:
    """How much TLS comes of the URL. Raises ValueError for a word that is none."""
    without, words = split(url)
    asked = _asyncpg_mode(without) or words.get("sslmode") or os.environ.get("PGSSLMODE") or SslMode.PREFER
    if asked not in _MODES:
        raise ValueError(f"AGENTEX_DATABASE_URL has sslmode={asked}; it takes {', '.join(_MODES)}")
    # As libpq has it, and asyncpg with it: an authority that is given is asked.
    is_more = asked == SslMode.REQUIRE and "sslrootcert" in words
    return SslMode.VERIFY_CA if is_more else SslMode(asked)


def check(url: str) -> None:
    """Raise ValueError, without the URL's password, for TLS that could not be had or would check nothing."""
    words, asked = split(url)[1], mode(url)
    for word in _FILES:
        if word in words:
            _readable(word, words[word])
    if "sslrootcert" not in words:
        return
    if _MODES.index(asked) < _MODES.index(SslMode.REQUIRE):
        raise ValueError(
            f"AGENTEX_DATABASE_URL has sslrootcert, which sslmode={asked} does not look at; "
            "say sslmode=verify-full"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(words["sslrootcert"])
    except ssl.SSLError:
        raise ValueError(
            f"AGENTEX_DATABASE_URL: sslrootcert={words['sslrootcert']} holds no certificate (PEM)"
        ) from None


def _asyncpg_mode(url: str) -> str | None:
    if "ssl" not in url:
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        given = make_url(url).query.get("ssl")
    except (ArgumentError, ValueError):
        return None
    return given if isinstance(given, str) else None


def _readable(word: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"AGENTEX_DATABASE_URL: {word}={path} cannot be read ({error.strerror})") from None
