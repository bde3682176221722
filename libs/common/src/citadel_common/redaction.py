"""Secrets in settings and URLs, which must never be logged or shown."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from citadel_contracts import outbound
from citadel_contracts.outbound import PROXY_VARIABLES

SHORTEST = 6
"""Characters of the shortest secret that is hidden: shorter ones occur in other words, and lines would be garbled."""
_PAIRS = re.compile(r"(?:^|\s)(?:ssl)?password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
"""Passwords in PostgreSQL's `key=value` pairs."""


def secrets_of(settings: BaseModel) -> frozenset[str]:
    """Return the secrets in settings at any depth, and in the URLs of the environment's proxies.

    They are keys, and the passwords in URLs: as written, decoded, and as a header carries them.
    """
    proxies = (os.environ.get(name, "") for name in PROXY_VARIABLES)
    values = (*_values(settings), *(proxy if "://" in proxy else f"http://{proxy}" for proxy in proxies))
    return frozenset(part for value in values for part in _parts(value) if len(part) >= SHORTEST)


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str) and "://" in value:
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _values(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner)


def _parts(secret: str) -> Iterator[str]:
    if "://" in secret:
        yield from (*passwords_of(secret), *basic_credentials(secret), *_queries(secret))
    elif pairs := _PAIRS.findall(secret):
        yield from (re.sub(r"\\(.)", r"\1", quoted or bare) for quoted, bare in pairs)
    else:
        yield secret


def servers_of(url: str) -> list[str]:
    """Return the URLs of the single servers: a URL of sentinels names several, separated by semicolons."""
    return url.split(";") if url.startswith("sentinel") else [url]


def passwords_of(url: str) -> Iterator[str]:
    """Yield the passwords in a URL, as written and decoded; none if it cannot be parsed."""
    for server in servers_of(url):
        with suppress(ValueError):
            parts = urlsplit(server if "://" in server else f"//{server}")
            password = parts.password or ""
            named = (value for name, value in parse_qsl(parts.query) if name.endswith("password"))
            yield from {password, unquote(password), *named} - {""}


def _queries(url: str) -> Iterator[str]:
    with suppress(ValueError):
        yield from outbound.query_secrets(url) if url.startswith("http") else ()


def basic_credentials(url: str) -> Iterator[str]:
    """Yield user and password of an HTTP URL in the form of the `Authorization` header."""
    with suppress(ValueError):
        authorization = outbound.without_credentials(url)[1] if url.startswith("http") else None
        yield from [authorization.removeprefix("Basic ")] if authorization else []


def without_credentials(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    return ";".join(map(_bare, servers_of(url)))


def _bare(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    # From the last @: a password may hold unquoted characters that would end the host for a URL parser.
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0].partition('#')[0]}"
