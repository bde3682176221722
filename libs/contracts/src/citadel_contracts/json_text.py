"""JSON from outside: bodies, lines of NDJSON, workflow files, task messages. One rule for all of them.

A value is kept exactly or refused with its place. Refused are integers beyond 64 bits, numbers that are infinite as
doubles, NaN, halves of surrogate pairs, text that is not UTF-8, and more than `MOST_LEVELS` levels. Of equal keys of an
object the last one counts; a byte order mark is skipped; a fraction has the precision of a double.
"""

import math
import re
from typing import Any

from pydantic_core import from_json

from citadel_contracts.errors import json_pointer

SMALLEST, LARGEST = -(2**63), 2**64 - 1
MOST_LEVELS = 200
"""Levels of lists and objects, which the parser and all that writes the value again can walk."""
BOM = b"\xef\xbb\xbf"
_PLAIN = bytes.maketrans(b"123456789E", b"000000000e")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SHOWN = 6
"""Names and indices of the place in a value that is nested too deeply, all of which would be longer than the reason."""
_HALF = "holds half of a surrogate pair"
_LONG_NUMBER, _LARGE_EXPONENT = b"0" * 19, b"e000"

Path = tuple[str | int, ...]


class NotJson(ValueError):
    """A text that is not JSON in UTF-8, or is nested too deeply; the message says where, by line and column."""


class UnusableValue(ValueError):
    """A value that cannot be kept as it is.

    Attributes:
        path: Names and indices that lead to it.
        detail: What is wrong with it.
    """

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{json_pointer(path) or 'the value'}: {detail}")
        self.path = path
        self.detail = detail


def loads(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        NotJson: It is not JSON.
        UnusableValue: A number in it cannot be kept as it is.
    """
    text = text.removeprefix(BOM)
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(_reason(str(error))) from None
    if may_hold_extremes(text):
        check(value)
    return value


def check(value: Any, *, levels: int | None = None) -> None:
    """Check that a JSON value can be kept as it is.

    Args:
        value: The value.
        levels: Levels of lists and objects that it may have; None for any number.

    Raises:
        UnusableValue: An integer is beyond 64 bits, a number is not finite, a text holds half of a surrogate pair, or
            lists and objects are nested too deeply.
    """
    # a stack instead of recursion, so that depth is no limit; paths only of what has members, so that vectors are quick
    stack: list[tuple[Path, Any]] = [((), [value])]
    while stack:
        path, found = stack.pop()
        if levels is not None and len(path) > levels:
            raise UnusableValue(path[1:_SHOWN], f"is nested more than {levels} levels deep")
        for key, inner in found.items() if isinstance(found, dict) else enumerate(found):
            if isinstance(inner, dict | list | tuple):
                stack.append(((*path, key), inner))
            elif (problem := _problem(inner)) is not None:
                raise UnusableValue((*path, key)[1:], problem)
            if isinstance(key, str) and _problem(key) is not None:
                raise UnusableValue(path[1:], f"has a name that {_HALF}")


def may_hold_extremes(text: bytes) -> bool:
    """Return whether a JSON text may hold a number that parsers change without a word; False is certain.

    It takes a few passes in C; nearly all texts need no closer look.
    """
    plain = text.translate(_PLAIN, b"+")
    return _LONG_NUMBER in plain or _LARGE_EXPONENT in plain or b"NaN" in plain or b"Infinity" in plain


def _problem(scalar: Any) -> str | None:
    """Return why a text or number cannot be kept."""
    if isinstance(scalar, float):
        return None if math.isfinite(scalar) else "is not a finite number in double precision"
    if isinstance(scalar, int):
        return None if SMALLEST <= scalar <= LARGEST else "is an integer beyond 64 bits: send it as a string"
    if isinstance(scalar, str) and not scalar.isascii() and _SURROGATES.search(scalar):
        return _HALF
    return None


def _reason(problem: str) -> str:
    if problem.startswith("recursion limit exceeded"):
        return problem.replace("recursion limit exceeded", f"more than {MOST_LEVELS} levels of lists and objects")
    return problem
