"""The secrets that a process was given, which must never appear in logs or traces."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

SHORTEST = 6
"""Characters; a shorter secret is part of other words, and hiding it would garble every line."""


def secrets_of(settings: BaseModel) -> frozenset[str]:
    """Return the secrets in settings, however deep: keys as they are, and passwords of URLs, quoted or not."""
    return frozenset(part for value in _values(settings) for part in _parts(value) if len(part) >= SHORTEST)


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
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
    if "://" not in secret:
        yield secret
        return
    try:
        password = urlsplit(secret).password or ""
    except ValueError:
        return
    yield from {password, unquote(password)}
