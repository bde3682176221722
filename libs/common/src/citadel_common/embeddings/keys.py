"""Cache keys: every input that changes the vector is in the key, each with its length."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

SCHEMA = "1"
"""Version of keys and values; a new one leaves old entries to expire."""
NAMESPACE = "citadel:embedding"
CLAIM_SUFFIX = ":claim"
"""Ends the key of a claim on an entry."""
STATS_KEY = "citadel:cache:stats"
"""Hash of the fleet's counts of lookups: hits, misses, errors."""


class KeySpace:
    """Keys of one model, dimensions, prefix and options.

    Args:
        identity: The model and its version, such as `nomic-embed-text@0a109f422b47`.
        dimensions: Length asked for; None is the model's own.
        prefix: What is put before each text.
        options: Backend options, in any order.
    """

    __slots__ = ("_seed", "stem")

    def __init__(
        self, *, identity: str, dimensions: int | None, prefix: str, options: Mapping[str, Any] | None
    ) -> None:
        self.stem = f"{NAMESPACE}:{SCHEMA}:{identity}:{dimensions or 'own'}:"
        canonical = orjson.dumps(options, option=orjson.OPT_SORT_KEYS) if options else b""
        self._seed = hashlib.blake2b(_with_length(prefix.encode()) + _with_length(canonical), digest_size=16)

    def key(self, text: str) -> str:
        """Return the key of one text."""
        digest = self._seed.copy()
        digest.update(_with_length(text.encode()))
        return self.stem + digest.hexdigest()

    def keys(self, texts: Sequence[str]) -> list[str]:
        """Return the keys of texts, in order."""
        return [self.key(text) for text in texts]


class KeyParts(NamedTuple):
    """The parts of a cache key; `rest` is the text's digest, with the claim's suffix on a claim."""

    schema: str
    identity: str
    dimensions: str
    rest: str


def parse_key(key: str) -> KeyParts | None:
    """Return the parts of a key of any version, or None if the text is not a key."""
    stem = f"{NAMESPACE}:"
    parts = key.removeprefix(stem).split(":", 3)
    return KeyParts(*parts) if key.startswith(stem) and len(parts) == 4 else None


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
