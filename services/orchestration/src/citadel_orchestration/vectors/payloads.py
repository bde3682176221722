"""Checks of what is stored: the store must give back what it was given."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from citadel_common.errors import VectorStoreRefused
from citadel_orchestration.vectors.points import Point

INTEGERS = range(-(2**63), 2**64)
"""Integers that Qdrant keeps; it makes floats of others."""
DEEPEST = 100
"""Levels of a payload; a server reads no more than some 120."""
LARGEST = float(np.finfo(np.float32).max)

Place = tuple[str | int, ...]


def check_points(points: Sequence[Point], size: int) -> None:
    """Check that points can be stored as they are.

    Raises:
        VectorStoreRefused: A vector has not that size or has a number beyond float32, or a payload has a value that is
            no JSON, or that the store would change.
    """
    for index, point in enumerate(points):
        if len(point.vector) != size:
            raise VectorStoreRefused(
                f"points[{index}]: its vector has {len(point.vector)} dimensions, where {size} are expected"
            )
        check_numbers(point.vector, f"points[{index}].embedding")
        for place, problem in _problems(point.payload, ()):
            raise VectorStoreRefused.at(f"points[{index}].payload{_written(place)}", problem)


def check_numbers(vector: Sequence[float], where: str) -> None:
    """Check that a vector's numbers can be float32.

    Raises:
        VectorStoreRefused: One is too large, or not finite; the message names it.
    """
    numbers = np.asarray(vector, dtype=np.float64)
    beyond = np.flatnonzero(~(np.abs(numbers) <= LARGEST))
    if beyond.size:
        raise VectorStoreRefused.at(f"{where}[{beyond[0]}]", f"{numbers[beyond[0]]:g} is beyond the range of a float32")


def _problems(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong in a JSON value, and where."""
    if len(place) > DEEPEST:
        yield (), f"is nested more than {DEEPEST} levels deep"
    elif isinstance(value, Mapping | list | tuple):
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, member in members:
            if isinstance(value, Mapping) and not (isinstance(key, str) and _is_text(key)):
                yield place, f"has the key {key!r}, which is no text"
            yield from _problems(member, (*place, key))
    elif (problem := _problem_of_scalar(value)) is not None:
        yield place, problem


def _problem_of_scalar(value: Any) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else "holds half of a surrogate pair, which is no text"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not JSON"
    if isinstance(value, int) and value not in INTEGERS:
        return "is beyond 64 bits, and the store would round it; write it as a string"
    return None


def _is_text(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode() or True)
    except UnicodeEncodeError:
        return False


def _written(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
