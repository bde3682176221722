"""Deterministic unit vectors, about a microsecond each.

A vector is a row of 32-value blocks. Each block comes from a bank of 256, chosen by one byte of a BLAKE2b
over model and text; all blocks have the same length, so the whole has length 1 without any arithmetic.
The bank keeps every block as JSON and as bytes too: answering is joining, not encoding numbers.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from hashlib import blake2b

import numpy as np
import orjson
from numpy.typing import NDArray

from tests.doubles.ollama.models import KNOWN, ModelSpec, canonical

BLOCK = 32
BANK = 256
SEED = 20260801

Vector = NDArray[np.float32]


class Flaw(StrEnum):
    """Flaw of one vector."""

    ZERO = "zero"
    INFINITE = "infinite"
    NAN = "nan"
    NULL = "null"
    WRONG_DIMENSION = "wrong_dimension"


FLAW_MODES = frozenset(flaw.value for flaw in Flaw)


# JSON has no word for infinity and NaN: 1e999 overflows in the reader, and null is what many servers write.
_FIRST_AS_JSON = {Flaw.INFINITE: b"1e999", Flaw.NAN: b"null", Flaw.NULL: b"null"}
_FIRST_AS_FLOAT = {Flaw.INFINITE: np.inf, Flaw.NAN: np.nan, Flaw.NULL: np.nan}


@dataclass(frozen=True, slots=True)
class _Bank:
    raw: tuple[bytes, ...]
    json: tuple[bytes, ...]


@cache
def _bank(dimensions: int) -> _Bank:
    if dimensions % BLOCK:
        raise ValueError(f"dimensions must be a multiple of {BLOCK}, not {dimensions}")
    blocks = np.random.default_rng(SEED).standard_normal((BANK, BLOCK))
    blocks *= (BLOCK / dimensions) ** 0.5 / np.linalg.norm(blocks, axis=1, keepdims=True)
    rows = blocks.astype("<f4")
    return _Bank(
        raw=tuple(row.tobytes() for row in rows),
        json=tuple(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for row in rows),
    )


def _choice(spec: ModelSpec, text: str) -> bytes:
    return blake2b(text.encode(), digest_size=spec.dimensions // BLOCK, key=f"{spec.name}{spec.salt}".encode()).digest()


def _full_bytes(spec: ModelSpec, text: str) -> bytes:
    raw = _bank(spec.dimensions).raw
    return b"".join([raw[i] for i in _choice(spec, text)])


def _full_json(spec: ModelSpec, text: str) -> bytes:
    json = _bank(spec.dimensions).json
    return b"[" + b",".join([json[i] for i in _choice(spec, text)]) + b"]"


def vector(spec: ModelSpec, text: str, dimensions: int | None = None) -> Vector:
    """Return the vector of a text, cut to `dimensions` and normalised again where asked."""
    full = np.frombuffer(_full_bytes(spec, text), dtype="<f4")
    if not dimensions or dimensions >= full.size:
        return full
    cut = full[:dimensions]
    shorter: Vector = (cut / np.linalg.norm(cut)).astype(np.float32)
    return shorter


def expected_vector(model: str, text: str, dimensions: int | None = None, *, salt: str = "") -> Vector:
    """Return what a healthy double answers for a text that is not overlong."""
    return vector(replace(KNOWN[canonical(model)], salt=salt), text, dimensions)


def _flawed(healthy: Vector, flaw: Flaw) -> Vector:
    if flaw is Flaw.WRONG_DIMENSION:
        return healthy[:-1]
    if flaw is Flaw.ZERO:
        return np.zeros_like(healthy)
    broken = healthy.copy()
    broken[0] = _FIRST_AS_FLOAT[flaw]
    return broken


def as_bytes(spec: ModelSpec, text: str, dimensions: int | None, flaw: Flaw | None) -> bytes:
    """Return a vector as little-endian float32."""
    if not dimensions and flaw is None:
        return _full_bytes(spec, text)
    values = vector(spec, text, dimensions)
    return (values if flaw is None else _flawed(values, flaw)).tobytes()


def as_json(spec: ModelSpec, text: str, dimensions: int | None, flaw: Flaw | None) -> bytes:
    """Return a vector as a JSON array."""
    if not dimensions and flaw is None:
        return _full_json(spec, text)
    values = vector(spec, text, dimensions)
    if flaw is not None:
        values = _flawed(values, flaw)
    encoded = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    first = _FIRST_AS_JSON.get(flaw) if flaw is not None else None
    return encoded if first is None else b"[" + first + b"," + encoded.split(b",", 1)[1]
