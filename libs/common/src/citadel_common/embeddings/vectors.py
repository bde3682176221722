"""Vectors: checks, and their forms in the cache and in answers.

In memory a vector is a contiguous little-endian float32 array of shape (dimensions,).
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from citadel_common.errors import BadVector

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
Precision = Literal["float32", "float16"]

_FORMS: dict[Precision, int] = {"float32": 1, "float16": 2}
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f2")}
_TRUNCATED = 0x80


def checked(values: object, *, dimensions: int | None) -> Vector:
    """Return `values` as a checked vector.

    Args:
        values: Numbers, or an array of them.
        dimensions: Required length; None accepts any.

    Raises:
        BadVector: Not one row of numbers, wrong length, NaN or infinite, or all zero.
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype="<f4", order="C")
    except (TypeError, ValueError, OverflowError):
        raise BadVector("the backend answered with something that is not a vector of numbers") from None
    if vector.ndim != 1 or vector.size == 0:
        raise BadVector(f"the backend answered with shape {vector.shape} instead of one vector")
    if dimensions is not None and vector.size != dimensions:
        raise BadVector(f"the backend answered with {vector.size} dimensions instead of {dimensions}")
    # One reduction tells all: NaN and infinity make the sum of squares non-finite, zeros make it zero.
    square = _square(vector)
    if not np.isfinite(square):
        raise BadVector("the backend answered with a vector that is not finite")
    if square == 0.0:
        raise BadVector("the backend answered with a zero vector")
    return vector


def checked_rows(rows: Sequence[object], *, dimensions: int | None) -> list[Vector | BadVector]:
    """Return each row as a vector, or the error with it; rows are converted in one step if possible.

    Args:
        rows: As many vectors, in any form `checked` takes.
        dimensions: Required length; None accepts any.
    """
    try:
        with np.errstate(over="ignore"):
            matrix = np.asarray(rows, dtype="<f4", order="C")
    except (TypeError, ValueError, OverflowError):
        return [_row(row, dimensions) for row in rows]
    if matrix.ndim != 2 or matrix.shape[1] != (dimensions or matrix.shape[1]):
        return [_row(row, dimensions) for row in rows]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    good = np.isfinite(squares) & (squares > 0)
    return [matrix[i] if fine else _row(rows[i], dimensions) for i, fine in enumerate(good.tolist())]


def _square(vector: Vector) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(vector, vector))


def _row(row: object, dimensions: int | None) -> Vector | BadVector:
    try:
        return checked(row, dimensions=dimensions)
    except BadVector as error:
        return error


@dataclass(frozen=True, slots=True)
class Stored:
    """A cached vector, and whether its text was longer than the model's input."""

    vector: Vector
    truncated: bool = False


def pack(stored: Stored, precision: Precision) -> bytes:
    """Return the cache's value: a header byte (form, whether the text was cut), then the little-endian numbers."""
    header = _FORMS[precision] | (_TRUNCATED if stored.truncated else 0)
    data = stored.vector if precision == "float32" else stored.vector.astype("<f2")
    return bytes((header,)) + data.tobytes()


def unpack(value: bytes) -> Stored | None:
    """Return the content of a cache value; None if its form is unknown or its vector unusable."""
    dtype = _DTYPES.get(value[0] & ~_TRUNCATED) if value else None
    if dtype is None or (len(value) - 1) % dtype.itemsize:
        return None
    vector: Vector = np.frombuffer(value, dtype=dtype, offset=1).astype("<f4", copy=False)
    square = _square(vector)
    return Stored(vector, bool(value[0] & _TRUNCATED)) if 0.0 < square < float("inf") else None


def to_base64(vector: Vector) -> str:
    """Return base64 of the little-endian float32 numbers, OpenAI's `base64` form."""
    return base64.b64encode(vector.tobytes()).decode("ascii")


def from_base64(text: str) -> Vector:
    """Return the vector of OpenAI's `base64` form."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def to_json(vector: Vector) -> orjson.Fragment:
    """Return a JSON array of the shortest decimals that give back the same float32 numbers."""
    return orjson.Fragment(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
